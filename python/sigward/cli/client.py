"""`sigward client`: the key pairs that sigward issues to its clients."""

import sys
from typing import TYPE_CHECKING

from sigward.clients import ask, key_of, process_json
from sigward.errors import UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import ClientOf

FORMATS = {
    "env": "AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}\n",
    "profile": "[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n",
}


def client(command: "ClientOf") -> int:
    """Returns the exit status."""
    clients = command.clients
    if command.what == "list":
        for name, one in clients.issued().items():
            key = key_of(clients, name)
            sys.stdout.write(f"{name}  {key.access_key_id}  identity {one.identity or 'as routes say'}\n")
        return 0
    if command.what == "credentials":
        if clients.socket is None:
            raise UsageError("clients.socket: it is not set.", hint="--clients.socket PATH, as the serving sigward has it.")
        sys.stdout.write(ask(clients.socket, command.name or "") + "\n")
        return 0
    if command.name is None:
        raise UsageError("client key: whose?", hint="sigward client key NAME")
    key = key_of(clients, command.name)
    if command.format == "json":
        sys.stdout.write(process_json(key) + "\n")
    else:
        sys.stdout.write(FORMATS[command.format].format(name=command.name, id=key.access_key_id, secret=key.secret_access_key))
    return 0
