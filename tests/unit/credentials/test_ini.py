"""A file that is cut gives what botocore's parser gives, for every section, or is parsed whole."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from botocore.configloader import load_config, raw_config_parse
from botocore.exceptions import ConfigNotFound, ConfigParseError
from botocore.session import Session

from sigward import _core
from sigward.credentials import Chain, Found, files, ini

ROLE = "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/a\nsource_profile = base\nservices = own\n"
PLAIN = {
    "a chain": f"{ROLE}[profile base]\naws_access_key_id = A\naws_secret_access_key = s\n[services own]\nsts =\n  endpoint_url = http://x\n",
    "single sign-on": "[sso-session s]\nsso_region = eu-west-1\n[default]\nsso_session = s\nsso_account_id = 1\n",
    "subsections": "[default]\ns3 =\n  addressing_style = path\n\n  max_queue_size = 3\nregion = x\n",
    "both separators": "[default]\nregion: eu-west-1\ncredential_process = /bin/a --b=c:d e\nempty =\n",
    "keys in capitals": "[default]\nAWS_Access_Key_ID = A\nREGION=b\n",
    "comments": "# [profile no]\n; no\n[default]\n# c\nregion = a # not a comment\n  ; c\nb = 1\n",
    "quoted names": (
        "[profile 'two words']\nregion = a\n[profile \"q\"]\nregion = b\n[profile a\\ b]\nregion = c\n[profile 'open]\nregion = d\n"
    ),
    "two names of one": "[profile a]\nregion = 1\n[profile 'a']\nregion = 2\n[default]\nregion = 3\n[profile default]\nregion = 4\n",
    "names that look alike": (
        "[profiles a]\nregion = 1\n[profile]\nregion = 2\n[profile a b]\nregion = 3\n[ profile c ]\nregion = 4\n[services]\n"
    ),
    "other sections": "[plugins]\ncli = x\n[preview]\na = b\n[default]\nregion = a\n",
    "Windows": "[default]\r\nregion = a\r\ns3 =\r\n  a = b\r\n[profile b]\r\nregion = c\r\n",
    "no line's end": "[default]\nregion = a",
    "a value of several lines": "[default]\ncredential_process = a\n  b\n  c\nregion = d\n",
    "letters": "[profile é]\nregion = ü\nclé = 1\n",
    "indented settings": "[default]\n  region = a\n  output = b\n[profile b]\n\tregion = c\n",
    "empty sections": "[a]\n[default]\n\n[b]\n",
    "nothing": "",
    "comments alone": "# a\n",
}
ODD = {
    "an indented header": "[default]\nregion = a\n [profile b]\nregion = c\n",
    "an indented header that counts": "[default]\n  [profile b]\n  region = c\n",
    "defaults": "[DEFAULT]\nregion = a\n[default]\noutput = b\n",
    "words behind a header": "[default] # c\nregion = a\n[profile b] x]\nregion = c\n",
    "brackets in a name": "[profile a[b]\nregion = c\n[profile a]b]\nregion = d\n",
    "a blank that is none": "[default]\nregion\u00a0= a\u00a0\n",
    "blanks that are none in names": (
        "[profile\u00a0a]\nregion = a\n[profile\u2003b]\nregion = b\n[profile c\u00a0d]\nregion = c\n"
        "[sso-session \u3000e]\nsso_region = d\n"
    ),
    "control characters in names": "[profile \x1ca]\nregion = a\n[profile b\x1f]\nregion = b\n[profile\tc]\nregion = c\n",
    "a page's end": "[default]\nregion = a\x0c\n",
    "an old Mac": "[default]\rregion = a\r",
    "a line separator": "[default]\nregion = a\u2028[profile b]\nregion = c\n",
    "a mark of the byte order": "\ufeff[default]\nregion = a\n",
}
WRONG = {
    "a section twice": "[a]\nb = 1\n[a]\nc = 1\n",
    "a key twice": "[a]\nb = 1\nB = 2\n",
    "a key twice, indented": "[a]\n  b = 1\n  b = 2\n",
    "a key without a value": "[a]\nb\n",
    "a value without a key": "[a]\n= b\n",
    "a header without its end": "[a\nb = 1\n",
    "an empty header": "[]\nb = 1\n",
    "a setting before the first section": "a = 1\n[b]\n",
    "a subsection that is none": "[a]\nb =\n  c\n",
    "a byte that is none": "[a]\nb = \udcff\n",
}
FILES = PLAIN | ODD | WRONG


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is short."""
    monkeypatch.setattr(ini, "WORTH_CUTTING", 0)


def same(text: str, file: Path) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))
    try:
        expected: dict[str, Any] | None = raw_config_parse(str(file))
    except ConfigParseError:
        expected = None
    if expected is not None:
        alike(file, expected)
        return
    with pytest.raises(ConfigParseError):
        ini.read(str(file))


def alike(file: Path, expected: dict[str, Any]) -> None:
    found = ini.read(str(file))
    assert {name: found[name] for name in found} == expected
    assert list(found) == list(expected)
    whole = ini.profiled(found)
    assert {name: plain(part) for name, part in whole.items()} == load_config(str(file))


def plain(part: Any) -> Any:
    return {name: plain(inner) for name, inner in part.items()} if not isinstance(part, str) else part


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", FILES)
def test_every_section_is_what_botocore_reads(name: str, tmp_path: Path) -> None:
    same(FILES[name], tmp_path / "file")
    # What is wrong or odd is, wherever it stands.
    for other in PLAIN.values():
        same(f"{other}\n[profile between]\nregion = a\n{FILES[name]}", tmp_path / "file")


@pytest.mark.usefixtures("cut")
def test_lines_in_any_order_are_what_botocore_reads(tmp_path: Path) -> None:
    lines = sorted(
        {line for text in FILES.values() for line in text.splitlines(keepends=True)} | {"\n", "  \n", "a = b\n", "[c]\n", "  d = e\n"}
    )
    draw = random.Random(7)
    for _ in range(1000):
        same("".join(draw.choices(lines, k=draw.randint(1, 8))), tmp_path / "file")


def test_plain_files_are_cut() -> None:
    assert [name for name, text in PLAIN.items() if _core.cut_ini(text.encode()) is None] == []
    assert [name for name, text in ODD.items() if _core.cut_ini(text.encode()) is not None] == []


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("profile", ["role", "base", "keys", "both", "away", None])
def test_a_session_says_the_same_of_each_profile(monkeypatch: pytest.MonkeyPatch, profile: str | None) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(PLAIN["a chain"] + "[profile both]\nregion = a\noutput = b\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text("[keys]\naws_access_key_id = K\n[both]\nregion = c\n[default]\nx = y\n")
    monkeypatch.delenv("AWS_PROFILE", raising=False)

    def told(session: Session) -> object:
        try:
            return plain(session.get_scoped_config()), sorted(session.available_profiles), plain(session.full_config)
        except Exception as error:
            return repr(error)

    assert told(Chain(profile, "us-east-1").session()) == told(Session(profile=profile))


@pytest.mark.fault("a config file with 100,000 profiles is touched", holds="it is read once, and only the profiles in use are parsed")
def test_a_file_of_a_hundred_thousand_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(os.environ["AWS_CONFIG_FILE"])
    text = "".join(f"[profile p{each}]\naws_access_key_id = A{each}\naws_secret_access_key = s\ns3 =\n  a = b\n" for each in range(100_000))
    file.write_text(text)
    os.utime(file, (1e9, 1e9))
    reads, parses = [], []
    read, parse = ini.read, ini.parse
    monkeypatch.setattr(ini, "read", lambda name: reads.append(name) or read(name))
    monkeypatch.setattr(ini, "parse", lambda data, path="": parses.append(len(data)) or parse(data, path))
    for each in (0, 50_000, 99_999):
        found = Chain(f"p{each}", "us-east-1").load()
        assert isinstance(found, Found)
        assert found.snapshot.access_key_id == f"A{each}"
    assert len([name for name in reads if name == str(file)]) == 1
    assert len(parses) == 3
    assert sum(parses) < 400
    files.forget()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigNotFound):
        ini.read(str(tmp_path))
    with (tmp_path / "file").open("w") as written:
        written.truncate(3 << 30)
    with pytest.raises(ConfigParseError) as caught:
        ini.read(str(tmp_path / "file"))
    assert "larger than 64 MiB" in str(caught.value.kwargs["error"])
