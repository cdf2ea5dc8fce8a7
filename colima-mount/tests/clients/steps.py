"""The steps of other_clients.rs by a library for Python: LIBRARY PORT USER KEY FILE-OF-STEPS."""

import stat
import sys

library, port, user, key, file = sys.argv[1:]
steps = [line.rstrip("\n").split("\t") for line in open(file)]


def names_of(entries):
    return sorted(name for name in entries if name not in (".", ".."))


def by_paramiko():
    import paramiko

    transport = paramiko.Transport(("127.0.0.1", int(port)))
    transport.connect(username=user, pkey=paramiko.RSAKey.from_private_key_file(key))
    sftp = paramiko.SFTPClient.from_transport(transport)
    for verb, *args in steps:
        if verb == "mkdir":
            sftp.mkdir(*args)
        elif verb == "put":
            sftp.put(*args)
        elif verb == "get":
            sftp.get(*args)
        elif verb == "rename":
            sftp.posix_rename(*args)
        elif verb == "chmod":
            sftp.chmod(args[0], int(args[1], 8))
            assert stat.S_IMODE(sftp.stat(args[0]).st_mode) == int(args[1], 8)
        elif verb == "remove":
            sftp.remove(*args)
        elif verb == "rmdir":
            sftp.rmdir(*args)
        elif verb == "list":
            assert names_of(sftp.listdir(args[0])) == sorted(args[1:]), args
        else:
            raise ValueError(verb)
    transport.close()


async def by_asyncssh():
    import asyncssh

    connection = await asyncssh.connect(
        "127.0.0.1", int(port), username=user, client_keys=[key], known_hosts=None, config=None
    )
    async with connection, connection.start_sftp_client() as sftp:
        for verb, *args in steps:
            if verb == "mkdir":
                await sftp.mkdir(*args)
            elif verb == "put":
                await sftp.put(*args)
            elif verb == "get":
                await sftp.get(*args)
            elif verb == "rename":
                await sftp.rename(*args)
            elif verb == "chmod":
                await sftp.chmod(args[0], int(args[1], 8))
                found = (await sftp.stat(args[0])).permissions
                assert stat.S_IMODE(found) == int(args[1], 8)
            elif verb == "remove":
                await sftp.remove(*args)
            elif verb == "rmdir":
                await sftp.rmdir(*args)
            elif verb == "list":
                assert names_of(await sftp.listdir(args[0])) == sorted(args[1:]), args
            else:
                raise ValueError(verb)


if library == "paramiko":
    by_paramiko()
else:
    import asyncio

    asyncio.run(by_asyncssh())
