"""Files of rows, schemas and models, at rest and growing, and what can be told from them."""
