"""A person's server: answers every connection at $A_PORT with the name of who it runs as."""

import os
import pwd
import socket

name = pwd.getpwuid(os.getuid()).pw_name
with socket.create_server(("127.0.0.1", int(os.environ["A_PORT"]))) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(name.encode())
