"""What the native front end's TLS takes, from the settings that grpc.aio has."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from server.native.front import Front
from server.native.start import tls_context
from server.settings import Settings


@pytest.mark.parametrize(
    ("ciphers", "taken"), [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA", False)]
)
async def test_tls_takes_what_http2_allows(ciphers: str, taken: bool, tmp_path: Path) -> None:
    """RFC 9113 9.2.2; and says h2 in the handshake, without which grpc's clients refuse."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    settings = Settings(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    front = Front({})
    await front.listen("127.0.0.1:0", tls_context(settings))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(ciphers)
    client.set_alpn_protocols(["h2", "http/1.1"])
    if taken:
        _, writer = await asyncio.open_connection("localhost", front.ports[0], ssl=client)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()
        await writer.wait_closed()
    else:
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("localhost", front.ports[0], ssl=client)
    await front.stop(1)
