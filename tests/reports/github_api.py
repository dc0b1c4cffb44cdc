"""GitHub's API for the comments of an issue, as far as a bot needs it: `python github_api.py FILE TOKEN [LOGIN]`.

FILE keeps the comments as JSON. TOKEN is LOGIN's, or a job's own, which is nobody's.
It listens on port 80 of a test's namespace, where `gh` looks for `github.localhost`.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

LIMIT = 65_536
LOGIN = sys.argv[3] if len(sys.argv) > 3 else ""
AUTHOR = {"login": LOGIN, "type": "User"} if LOGIN else {"login": "github-actions[bot]", "type": "Bot"}
LIST = re.compile(r"/repos/[^/]+/[^/]+/issues/\d+/comments(\?.*)?")
ONE = re.compile(r"/repos/[^/]+/[^/]+/issues/comments/(\d+)")


class Api(BaseHTTPRequestHandler):
    """Answers from and writes to the file."""

    def do_GET(self) -> None:
        """All comments, or whose the token is."""
        if self.path == "/user":
            self._answer(200 if LOGIN else 403, {"login": LOGIN} if LOGIN else {"message": "Resource not accessible"})
            return
        self._answer(200 if LIST.fullmatch(self.path) else 404, self._comments())

    def do_POST(self) -> None:
        """One more, the bot's."""
        comments = self._comments()
        new = {"id": len(comments) + 1, "user": AUTHOR, "body": self._body()}
        self._save(201 if LIST.fullmatch(self.path) else 404, [*comments, new])

    def do_PATCH(self) -> None:
        """Another text for one of them."""
        found, body = ONE.fullmatch(self.path), self._body()
        mine = [c | {"body": body} if found and c["id"] == int(found[1]) else c for c in self._comments()]
        self._save(200 if found else 404, mine)

    def _comments(self) -> list[dict[str, object]]:
        comments: list[dict[str, object]] = json.loads(Path(sys.argv[1]).read_text())
        return comments

    def _body(self) -> str:
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def _save(self, status: int, comments: list[dict[str, object]]) -> None:
        if any(len(str(c["body"])) > LIMIT for c in comments):
            status = 422
        if status < 300:
            Path(sys.argv[1]).write_text(json.dumps(comments))
        self._answer(status, {})

    def _answer(self, status: int, document: object) -> None:
        if self.headers["Authorization"] != f"token {sys.argv[2]}":
            status = 401
        payload = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 80), Api)
    print("ready", flush=True)
    server.serve_forever()
