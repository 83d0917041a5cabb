"""Links between nodes: frames, sessions, the reliable channel, TCP and mutual TLS."""

from actors.links.reliable import ReliableConfig
from actors.links.security import Plaintext, Security
from actors.links.session import Limits, Refusal
from actors.links.settings import Backoff, TcpConfig
from actors.links.tcp import TcpTransport
from actors.links.tls import Files, MutualTls, make_authority, private_pem, sign_node

__all__ = [
    "Backoff",
    "Files",
    "Limits",
    "MutualTls",
    "Plaintext",
    "Refusal",
    "ReliableConfig",
    "Security",
    "TcpConfig",
    "TcpTransport",
    "make_authority",
    "private_pem",
    "sign_node",
]
