"""Sign-in by OpenID Connect: the authorization code flow with PKCE (RFC 7636), and the user behind an ID token.

An account at a provider is nobody here until an administrator has added a user of that name.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import jwt

from isthmus.domain.errors import Forbidden, Refused, Unauthenticated, Unavailable
from isthmus.domain.ids import is_name
from isthmus.trust.access import Scope

TIMEOUT_SECONDS = 10.0
LEEWAY_SECONDS = 60  # by which the provider's clock may differ
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")  # never none, never a shared secret
_STRINGS = ("issuer", "client_id", "client_secret", "name", "user_claim", "email_domain", "public_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An identity provider, as the file `oidc.json` of the state directory names it."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    name: str = ""  # what people call it
    user_claim: str = "preferred_username"
    email_domain: str = ""  # with user_claim "email": the only domain that is taken; the part before @ is the user
    public_url: str = ""  # where browsers find this service; else as the request came in
    scopes: tuple[Scope, ...] = ()  # of the tokens that are made; empty: all but those of agents
    session_seconds: int = 12 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What this service remembers of a sign-in that has begun; it travels sealed."""

    nonce: str
    verifier: str
    redirect_uri: str


def read_provider(path: Path) -> Provider | None:
    """The provider in a file; None when there is no file, Refused when others can read it or it is not right."""
    try:
        mode = path.stat().st_mode
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}.", remedy="Write it as JSON.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Refused(f"{path} can be read by others and may hold a secret.", remedy=f"chmod 600 {path}")
    known = {*_STRINGS, "scopes", "session_seconds"}
    if not isinstance(body, dict) or body.keys() - known:
        raise Refused(f"{path} does not hold what it should.", remedy=f"Give {', '.join(sorted(known))}.")
    if not all(isinstance(body.get(name, ""), str) for name in _STRINGS):
        raise Refused(f"{path} has a field that is not text.", remedy=f"Texts are {', '.join(_STRINGS)}.")
    if not body.get("issuer") or not body.get("client_id"):
        raise Refused(f"{path} names no provider.", remedy="Give issuer and client_id.")
    split = urlsplit(body["issuer"])
    if split.scheme != "https" and split.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise Refused(f"{path}: the issuer is not reached by https.", remedy="Give its https:// address.")
    if body.get("user_claim") == "email" and not body.get("email_domain"):
        raise Refused(f"{path}: user_claim is email and any domain would do.", remedy="Give email_domain.")
    seconds = body.get("session_seconds", 12 * 3600)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 60 <= seconds <= 30 * 86400:
        raise Refused(f"{path}: session_seconds is {seconds!r}.", remedy="Give 60 to 2592000.")
    try:
        scopes = tuple(Scope(name) for name in body.get("scopes", ()))
    except (ValueError, TypeError):
        scopes = (Scope.AGENT,)
    if Scope.AGENT in scopes:
        mintable = ", ".join(scope for scope in Scope if scope is not Scope.AGENT)
        raise Refused(f"{path}: scopes holds something else than scopes.", remedy=f"There are: {mintable}.")
    texts = {name: body[name] for name in _STRINGS if name in body}
    return Provider(**texts, scopes=scopes, session_seconds=seconds)


class SignIn:
    """Speaks to one provider. Its documents are fetched when first needed, and its keys again when one is not known."""

    def __init__(self, provider: Provider, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.provider = provider
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, transport=transport, follow_redirects=False)
        self._document: dict[str, Any] | None = None
        self._keys: jwt.PyJWKSet | None = None
        self._lock = asyncio.Lock()

    async def begin(self, redirect_uri: str, seal: Callable[[Flow], str]) -> str:
        """Where the browser goes; what is to be remembered until it is back travels sealed as `state`."""
        document = await self._discover()
        flow = Flow(nonce=secrets.token_urlsafe(24), verifier=secrets.token_urlsafe(48), redirect_uri=redirect_uri)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid profile email",
            "state": seal(flow),
            "nonce": flow.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = str(document["authorization_endpoint"])
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"

    async def finish(self, code: str, flow: Flow) -> str:
        """The user of this service behind the code that the browser brought back.

        Unauthenticated when the provider does not stand by it, Forbidden when its claims name nobody.
        """
        document = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "client_id": self.provider.client_id,
            "code_verifier": flow.verifier,
        }
        if self.provider.client_secret:
            form["client_secret"] = self.provider.client_secret
        answer = await self._call("POST", str(document["token_endpoint"]), form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Unauthenticated("The identity provider gave no ID token.", remedy="Begin again.")
        claims = await self._verified(token)
        if not secrets.compare_digest(str(claims.get("nonce", "")), flow.nonce):
            raise Unauthenticated("The ID token belongs to another sign-in.", remedy="Begin again.")
        access, place = answer.get("access_token"), document.get("userinfo_endpoint")
        if self.provider.user_claim not in claims and isinstance(access, str) and isinstance(place, str):
            # Many providers keep what they know of a person for this endpoint.
            more = await self._call("GET", place, bearer=access)
            if more.get("sub") != claims["sub"]:
                raise Unauthenticated("The identity provider speaks of another person.", remedy="Begin again.")
            claims = {**more, **claims}
        return user_of(claims, self.provider)

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def _verified(self, token: str) -> dict[str, Any]:
        for fresh in (False, True):
            try:
                key = _key_of(token, await self._keyset(fresh))
                if key is None:
                    continue
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=list(ALGORITHMS),
                    audience=self.provider.client_id,
                    issuer=str((await self._discover())["issuer"]),
                    leeway=LEEWAY_SECONDS,
                    options={"require": ["exp", "iat", "iss", "aud", "sub"]},
                )
            except jwt.PyJWTError as error:
                raise Unauthenticated(f"The ID token does not hold: {error}.", remedy="Begin again.") from None
            return claims
        raise Unauthenticated("The ID token is signed with an unknown key.", remedy="Begin again.")

    async def _discover(self) -> dict[str, Any]:
        async with self._lock:
            if self._document is None:
                address = f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration"
                found = await self._call("GET", address)
                wanted = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
                if not all(isinstance(found.get(name), str) for name in wanted):
                    raise Unavailable("The identity provider's document lacks what it must have.")
                if found["issuer"].rstrip("/") != self.provider.issuer.rstrip("/"):
                    raise Unavailable("The identity provider calls itself otherwise than oidc.json does.")
                self._document = found
            return self._document

    async def _keyset(self, fresh: bool) -> jwt.PyJWKSet:
        document = await self._discover()
        async with self._lock:
            if self._keys is None or fresh:
                try:
                    self._keys = jwt.PyJWKSet.from_dict(await self._call("GET", str(document["jwks_uri"])))
                except jwt.PyJWTError as error:
                    raise Unavailable(f"The identity provider's keys cannot be read: {error}.") from None
            return self._keys

    async def _call(
        self, method: str, address: str, form: dict[str, str] | None = None, *, bearer: str = ""
    ) -> dict[str, Any]:
        """One call; a refusal is Unauthenticated when it was about a code, and no answer is Unavailable."""
        try:
            answer = await self._http.request(
                method, address, data=form, headers={"Authorization": f"Bearer {bearer}"} if bearer else {}
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The identity provider does not answer ({type(error).__name__}).", remedy="Sign in by token."
            ) from None
        if form is not None and 400 <= answer.status_code < 500:
            raise Unauthenticated("The identity provider does not accept the sign-in.", remedy="Begin again.")
        try:
            body = answer.json() if answer.status_code == 200 else None
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Unavailable(f"The identity provider answered {answer.status_code}.", remedy="Sign in by token.")
        return body


def _key_of(token: str, known: jwt.PyJWKSet) -> jwt.PyJWK | None:
    """The key that a token names; one that names none is signed with the only key that there is (OpenID Connect 10.1)."""
    name = jwt.get_unverified_header(token).get("kid")
    if name is None:
        return known.keys[0] if len(known.keys) == 1 else None
    return next((key for key in known.keys if key.key_id == name), None)


def user_of(claims: dict[str, Any], provider: Provider) -> str:
    """The name of the user that the claims stand for; Forbidden when they name nobody."""
    value = claims.get(provider.user_claim)
    name = value.strip().lower() if isinstance(value, str) else ""
    if provider.user_claim == "email":
        name, _, domain = name.partition("@")
        if domain != provider.email_domain.lower() or claims.get("email_verified") is not True:
            raise Forbidden(f"Only verified addresses at {provider.email_domain} are taken here.")
    if not is_name(name):
        raise Forbidden(
            f"The identity provider's claim {provider.user_claim} is no name of a user.",
            remedy="An administrator chooses another user_claim in oidc.json.",
        )
    return name
