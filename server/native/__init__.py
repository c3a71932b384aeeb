"""The native front end: HTTP/2 by nghttp2 (http2.c) under an asyncio protocol (front). `make native` builds it."""
