"""A small object storage on 127.0.0.1 that speaks enough of S3 for pyarrow."""

import io
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class ObjectStorage(ThreadingHTTPServer):
    """Objects by `/bucket/key`, in memory; uploads in parts are put together."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {}
        self.parts = {}

    def folders(self):
        """Return where objects lie; pyarrow marks folders by empty ones, which do not count."""
        names = [path for path in self.objects if not path.endswith("/")]
        return sorted(path.rpartition("/")[0] for path in names)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(headers.pop("length", len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _asked(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        return unquote(url.path), query

    def _body(self):
        """Read what was sent; AWS' clients send pieces with signatures in between."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = _pieces(self.rfile)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_pieces = "aws-chunked" in self.headers.get("Content-Encoding", "")
        return _pieces(io.BytesIO(body)) if is_pieces else body

    def do_HEAD(self):
        path, _ = self._asked()
        found = self.server.objects.get(path)
        if found is None:
            is_bucket = any(key.startswith(f"{path.rstrip('/')}/") for key in self.server.objects)
            self._answer(200 if is_bucket and path.count("/") == 1 else 404)
        else:
            self._answer(200, b"", length=len(found), Last_Modified="Sat, 21 Nov 2026 12:00:00 GMT")

    def do_GET(self):
        path, query = self._asked()
        if "list-type" in query:
            self._list(path.strip("/"), query)
            return
        found = self.server.objects.get(path)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            piece = found[int(first) : int(last) + 1 if last else None]
            span = f"bytes {first}-{int(first) + len(piece) - 1}/{len(found)}"
            self._answer(206, piece, Content_Range=span)
        else:
            self._answer(200, found)

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        contents, folders = "", set()
        for path, body in sorted(self.server.objects.items()):
            key = path.removeprefix(f"/{bucket}/")
            if key == path or not key.startswith(prefix):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if found:
                folders.add(prefix + head + delimiter)
                continue
            contents += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>"
                f"<LastModified>2026-11-21T12:00:00.000Z</LastModified></Contents>"
            )
        for folder in sorted(folders):
            contents += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        self._answer(200, body.encode(), Content_Type="application/xml")

    def do_PUT(self):
        path, query = self._asked()
        body = self._body()
        if "partNumber" in query:
            self.server.parts.setdefault(query["uploadId"], {})[int(query["partNumber"])] = body
        elif path.strip("/").count("/") or not path.endswith("/"):
            self.server.objects[path] = body
        self._answer(200, b"", ETag='"x"')

    def do_POST(self):
        path, query = self._asked()
        self._body()
        if "uploads" in query:
            name = "InitiateMultipartUploadResult"
            body = f"<{name}><UploadId>1</UploadId></{name}>"
            self._answer(200, body.encode(), Content_Type="application/xml")
            return
        if "uploadId" in query:
            parts = self.server.parts.pop(query["uploadId"])
            self.server.objects[path] = b"".join(parts[number] for number in sorted(parts))
        body = b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
        self._answer(200, body, Content_Type="application/xml")

    def do_DELETE(self):
        path, query = self._asked()
        if "uploadId" in query:
            self.server.parts.pop(query["uploadId"], None)
        else:
            self.server.objects.pop(path, None)
        self._answer(204)


def _pieces(file):
    """Put together pieces of the form: size in hexadecimal, a line's end, data, a line's end."""
    body = b""
    while size := int(file.readline().partition(b";")[0].strip() or b"0", 16):
        body += file.read(size)
        file.readline()
    while file.readline().strip():
        pass  # trailers
    return body


@contextmanager
def object_storage(monkeypatch):
    """Serve a storage whose address the process' environment names."""
    server = ObjectStorage()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
