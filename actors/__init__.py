"""A small actor runtime for asyncio and trio. It knows nothing of learning."""
