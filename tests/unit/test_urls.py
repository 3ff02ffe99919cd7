"""URLs of servers and models: what is illegal is encoded, and nothing else is touched."""

from __future__ import annotations

import string
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async._http.urls import legal_url

LEGAL = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/?#[]%"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://h/a b.png", "https://h/a%20b.png"),
        ("https://h/ü.png?x=ö#ä", "https://h/%C3%BC.png?x=%C3%B6#%C3%A4"),
        ("https://h/x?sig=a%2Fb+c%20d%2be&s=%2B", "https://h/x?sig=a%2Fb+c%20d%2be&s=%2B"),
        ("https://h/ü?sig=a%2Fb+c%20d%2be", "https://h/%C3%BC?sig=a%2Fb+c%20d%2be"),
        ("https://h/100%/%zz/../x//y?", "https://h/100%/%zz/../x//y?"),
        ('https://h/a|b{c}^`"<>\\', "https://h/a%7Cb%7Bc%7D%5E%60%22%3C%3E%5C"),
        ("https://h/a\tb\nc", "https://h/a%09b%0Ac"),
        ("https://h/a\udce9b", "https://h/a%E9b"),  # a byte of a header in Latin-1
        ("https://bücher.example:81/x", "https://xn--bcher-kva.example:81/x"),
        ("https://faß.de/", "https://xn--fa-hia.de/"),
        ("https://日本語.jp/画像 1.png", "https://xn--wgv71a119e.jp/%E7%94%BB%E5%83%8F%201.png"),
        ("https://u:p w@bücher.example/", "https://u:p%20w@xn--bcher-kva.example/"),
        ("https://[::1]:8/a b", "https://[::1]:8/a%20b"),
        ("/a b?ü", "/a%20b?%C3%BC"),
        ("//bücher.example/a b", "//xn--bcher-kva.example/a%20b"),
    ],
)
def test_what_is_illegal_is_encoded(given: str, sent: str) -> None:
    """Letters and spaces are encoded as UTF-8, and hosts as IDNA; escapes and signatures stay as they are."""
    assert legal_url(given) == sent


@pytest.mark.parametrize("host", ["a b", "ü ü", "ü" * 80 + ".de", "a\nb", "ü\x00"])
def test_hosts_that_cannot_be(host: str) -> None:
    """A host that is not valid is a ValueError."""
    with pytest.raises(ValueError, match="not a valid host"):
        legal_url(f"https://{host}/x")


@given(
    st.text(LEGAL),
    st.sampled_from(["https://h/", "http://h:8/", "https://xn--bcher-kva.example/", "/"]),
)
def test_what_is_legal_stays(path: str, start: str) -> None:
    """A URL of legal characters stays byte for byte as it is."""
    assert legal_url(start + path) == start + path


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text())
@example("%2F+%20%2b ü", "")
def test_nothing_is_lost(path: str, query: str) -> None:
    """Only what is illegal is encoded; encoding again changes nothing, and decoding gives the same bytes."""
    query = query.encode("utf-8", "ignore").decode()
    url = f"https://h/{path}?{query}"
    sent = legal_url(url)
    assert set(sent) <= set(LEGAL)
    assert legal_url(sent) == sent
    assert unquote_to_bytes(sent) == unquote_to_bytes(url.encode())
    kept = "".join(each for each in url if each in LEGAL)
    rest = iter(sent)
    assert all(each in rest for each in kept)  # what is legal is there, in its order
    assert urlsplit(sent).netloc == "h"
