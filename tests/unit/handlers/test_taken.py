import pytest

from pyserver.config import Alias, Redirect, Site
from pyserver.handlers.taken import Taken

SITE = Site(
    "/srv/www",
    aliases=(Alias("/static/", "/srv/static"), Alias("/static/more/", "/srv/more")),
    redirects=(Redirect("/old", "/new"), Redirect("/gone/*", "/"), Redirect("/static/moved.css", "/static/new.css")),
)


@pytest.mark.parametrize(
    ("alias", "path", "who"),
    [
        ("/", b"/index.html", None),
        ("/", b"/static", "the alias /static/"),
        ("/", b"/static/a.css", "the alias /static/"),
        ("/", b"/static-private/a.css", None),  # T-2
        ("/", b"/old", "the redirect from /old"),
        ("/", b"/old/", None),
        ("/", b"/older", None),
        ("/", b"/gone/", "the redirect from /gone/*"),
        ("/", b"/gone/a/b", "the redirect from /gone/*"),
        ("/", b"/gone", None),
        ("/static/", b"/a.css", None),
        ("/static/", b"/moved.css", "the redirect from /static/moved.css"),
        ("/static/", b"/more/a.css", "the alias /static/more/"),
        ("/static/more/", b"/a.css", None),
    ],
)
def test_who_has_a_path(alias: str, path: bytes, who: str | None) -> None:
    assert Taken(SITE, alias).by(path) == who
