"""Sign-in through an identity provider: the whole flow against a provider on loopback, and every way in which it must fail.

The provider is `oidc-provider-mock`: a stand-in for a university's own, real in what it speaks (it is built on Authlib).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from isthmus.domain.errors import Forbidden, Refused, Unauthenticated
from isthmus.trust.access import Scope
from isthmus.trust.oidc import Flow, Provider, SignIn, read_provider, user_of
from tests.api.conftest import House
from tests.identity.provider import running_provider

pytestmark = pytest.mark.filterwarnings("ignore")  # the stand-in's own
CLIENT = "isthmus-console"
NOT_COMPLETED = "/#sign-in-failed=not_completed"
SECRET = "told to nobody"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider on loopback that knows ada and stranger."""
    with running_provider({"ada": "ada", "stranger": "stranger"}) as address:
        yield address


async def _begin(browser: httpx.AsyncClient) -> str:
    began = await browser.get("/v1/sign-in/oidc")
    assert began.status_code == 302, began.text
    return began.headers["location"]


async def _consent(address: str, sub: str) -> str:
    """What the person does at the provider; the path and query that it sends the browser back to."""
    async with httpx.AsyncClient() as person:
        agreed = await person.post(address, data={"sub": sub})
    assert agreed.status_code == 302, agreed.text
    back = urlsplit(agreed.headers["location"])
    return f"{back.path}?{back.query}"


async def test_a_person_signs_in_and_gets_a_token_of_their_own_that_ends(house: House, issuer: str) -> None:
    """The way there and back leads to a token of the user that the provider names, for the browser that began alone."""
    await _add_user(house, "ada")
    house.service.sign_in = SignIn(Provider(issuer=issuer, client_id=CLIENT, client_secret=SECRET, name="University"))
    browser = house.client(None)
    assert (await browser.get("/v1/sign-in")).json()["ways"][1] == {
        "kind": "oidc",
        "name": "University",
        "url": "/v1/sign-in/oidc",
    }
    address = await _begin(browser)
    query = parse_qs(urlsplit(address).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == ["http://isthmus/v1/sign-in/oidc/callback"]
    back = await _consent(address, "ada")
    other = house.client(None)
    assert (await other.get(back)).headers["location"] == NOT_COMPLETED, "another browser"
    came = await browser.get(back)
    assert came.status_code == 302, came.text
    found = re.fullmatch(r"/#sign-in-code=([\w-]+)", came.headers["location"])
    assert found
    assert (await other.post("/v1/sign-in:redeem", json={"code": found[1]})).status_code == 401
    made = await browser.post("/v1/sign-in:redeem", json={"code": found[1]})
    assert made.status_code == 201, made.text
    body = made.json()
    assert body["user"] == "ada"
    me = await house.client(body["token"]).get("/v1/me")
    assert me.json()["user"] == "ada"
    assert me.json()["is_admin"] is False
    house.clock.now += 12 * 3600 + 1
    assert (await house.client(body["token"]).get("/v1/me")).status_code == 401
    assert SECRET not in address + came.headers["location"] + made.text


async def test_who_is_no_user_here_is_told_so(house: House, issuer: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is added by signing in; the log says what an administrator may do."""
    caplog.set_level("INFO", logger="isthmus.api.signin")
    house.service.sign_in = SignIn(Provider(issuer=issuer, client_id=CLIENT, client_secret=SECRET))
    browser = house.client(None)
    refused = await browser.get(await _consent(await _begin(browser), "stranger"))
    assert refused.headers["location"] == "/#sign-in-failed=no_user"
    assert "isthmus user add stranger" in caplog.text


async def test_what_is_late_false_or_foreign_is_refused(house: House, issuer: str) -> None:
    """A state of nobody, one that is too old, a code that the provider does not know, an error of the provider's."""
    house.service.sign_in = SignIn(Provider(issuer=issuer, client_id=CLIENT, client_secret=SECRET))
    browser = house.client(None)
    state = parse_qs(urlsplit(await _begin(browser)).query)["state"][0]
    back = "/v1/sign-in/oidc/callback"
    assert (await browser.get(back, params={"state": "x" * 50, "code": "c"})).headers["location"] == NOT_COMPLETED
    assert (await browser.get(back, params={"state": state, "code": "unknown"})).headers["location"] == NOT_COMPLETED
    assert (await browser.get(back, params={"state": state, "error": "access_denied"})).headers[
        "location"
    ] == NOT_COMPLETED
    assert (await browser.get(back)).headers["location"] == NOT_COMPLETED
    house.clock.now += 601
    late = await browser.get(back, params={"state": state, "code": "c"})
    assert late.headers["location"] == NOT_COMPLETED
    assert (await browser.post("/v1/sign-in:redeem", json={"code": state})).status_code == 401
    house.service.sign_in = SignIn(Provider(issuer="http://localhost:9", client_id=CLIENT))
    assert (await browser.get("/v1/sign-in/oidc")).status_code == 503
    house.service.sign_in = None
    assert (await browser.get("/v1/sign-in/oidc")).status_code == 404


async def test_an_id_token_must_be_signed_by_the_provider_for_this_service_and_this_sign_in() -> None:
    """Another's key, audience, issuer, nonce, an old one, one signed with a shared secret: each is refused."""
    key, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | {"kid": "k", "use": "sig"}
    good: dict[str, Any] = {
        "iss": "https://id.example",
        "aud": CLIENT,
        "sub": "1",
        "nonce": "n",
        "iat": 1,
        "exp": 2**40,
    }
    good["preferred_username"] = "Ada"
    told: dict[str, Any] = {}

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/.well-known"):
            paths = {f"{name}_endpoint": f"https://id.example/{name}" for name in ("authorization", "token")}
            return httpx.Response(
                200, json={"issuer": "https://id.example", "jwks_uri": "https://id.example/k", **paths}
            )
        return httpx.Response(200, json={"keys": [public]} if request.url.path == "/k" else {"id_token": told["token"]})

    sign_in = SignIn(Provider(issuer="https://id.example", client_id=CLIENT), httpx.MockTransport(provider))
    flow = Flow(nonce="n", verifier="v", redirect_uri="https://here/back")

    async def finish(claims: dict[str, Any], by: Any = key, algorithm: str = "RS256", kid: str = "k") -> str:
        told["token"] = jwt.encode(claims, by, algorithm=algorithm, headers={"kid": kid})
        return await sign_in.finish("code", flow)

    assert await finish(good) == "ada"
    for wrong in (
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"nonce": "of another sign-in"},
        {"exp": 10},
        {"iat": 2**39},
    ):
        with pytest.raises(Unauthenticated):
            await finish(good | wrong)
    with pytest.raises(Unauthenticated):
        await finish(good, other)
    with pytest.raises(Unauthenticated):
        await finish(good, "x" * 64, "HS256")
    with pytest.raises(Unauthenticated):
        await finish(good, key, kid="unknown")
    await sign_in.close()


def test_claims_name_a_user_or_nobody() -> None:
    """A name as it is; an address only when it is verified and of the domain; everything else is nobody."""
    by_mail = Provider(issuer="i", client_id="c", user_claim="email", email_domain="uni.example")
    assert user_of({"email": "Ada@Uni.example", "email_verified": True}, by_mail) == "ada"
    for claims in (
        {"email": "ada@uni.example", "email_verified": False},
        {"email": "ada@evil.example", "email_verified": True},
        {"email": "ada@uni.example"},
        {},
    ):
        with pytest.raises(Forbidden):
            user_of(claims, by_mail)
    with pytest.raises(Forbidden):
        user_of({"preferred_username": "../admin"}, Provider(issuer="i", client_id="c"))


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ({"issuer": "http://id.example", "client_id": "c"}, "https"),
        ({"issuer": "https://id.example"}, "no provider"),
        ({"issuer": "https://id.example", "client_id": "c", "scopes": ["agent"]}, "scopes"),
        ({"issuer": "https://id.example", "client_id": "c", "scopes": ["no-such"]}, "scopes"),
        ({"issuer": "https://id.example", "client_id": "c", "session_seconds": 5}, "session_seconds"),
        ({"issuer": "https://id.example", "client_id": "c", "user_claim": "email"}, "email_domain"),
        ({"issuer": "https://id.example", "client_id": "c", "colour": "red"}, "does not hold"),
        ({"issuer": 7, "client_id": "c"}, "not text"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, document: dict[str, Any], cause: str) -> None:
    """Each wrong field is named; a file that others can read too; none is no provider."""
    file = tmp_path / "oidc.json"
    assert read_provider(file) is None
    file.write_text(json.dumps(document))
    file.chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        read_provider(file)
    file.chmod(0o600)
    with pytest.raises(Refused, match=cause):
        read_provider(file)
    file.write_text(json.dumps({"issuer": "https://id.example", "client_id": "c", "scopes": ["tasks:read"]}))
    assert read_provider(file) == Provider(issuer="https://id.example", client_id="c", scopes=(Scope("tasks:read"),))


async def _add_user(house: House, name: str) -> None:
    added = await house.client(house.admin).post("/v1/users", json={"name": name})
    assert added.status_code in (201, 409), added.text
