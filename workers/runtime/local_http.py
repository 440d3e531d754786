"""An HTTP server that asks no name server."""

from __future__ import annotations

from http.server import HTTPServer
from socketserver import TCPServer


class LocalHttpServer(HTTPServer):
    """As HTTPServer, which looks up the host's name when it binds: a request to a DNS server."""

    def server_bind(self) -> None:
        """Binds; the address is the server's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
