"""Which addresses a webhook may reach, and which it must not, in every spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Webhook
from pipeline.errors import ConfigError, OutsideError
from workers.config.ssrf_guard import allowed, target

SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


def hook(url, **settings):
    return Webhook(url=url, secret=SECRET, **settings)


def leads_to(*addresses):
    return lambda host, port: list(addresses)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/hook",
        "http://127.8.9.1/hook",
        "http://[::1]:8080/hook",
        "http://10.0.0.7/hook",
        "https://192.168.1.20/hook",
        "http://[fd12:3456::1]/hook",
        "http://100.64.0.9/hook",
        "http://[::ffff:10.0.0.7]/hook",
        "https://93.184.216.34/hook",
    ],
)
def test_an_address_that_the_operator_wrote_is_meant(url):
    to = target(hook(url))
    assert allowed(to, leads_to(to.host)) == [to.host]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "http://0.1.2.3/",
        "http://[::]/",
        "http://224.0.0.1/",
        "http://[ff02::1]/",
        "http://255.255.255.255/",
        "http://240.0.0.1/",
    ],
)
def test_metadata_and_multicast_are_refused_also_as_literals(url):
    with pytest.raises(ConfigError, match="allow_networks"):
        target(hook(url))


@pytest.mark.parametrize(
    "host",
    ["127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "017700000001"],
)
def test_an_address_in_a_strange_form_is_refused(host):
    with pytest.raises(ConfigError, match="usual form"):
        target(hook(f"http://{host}/"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "https://",
        "https:///hook",
        "https://user:hunter2@example.org/",
        "https://hunter2@example.org/",
        "https://example.org@169.254.169.254/",
        "https://example.org#@evil.org/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:x/",
        "https://exa mple.org/",
        "https://example.org/\r\nX-Evil: 1",
        "https://example.org/\nHost: evil",
        "https://example.org/\x00",
        "https://example.org/\n",
        "https://example.org\n/",
        "https://example.org\\@evil.org/",
        "https://ex%61mple.org/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://bücher.example/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://" + "a" * 300 + ".org/",
        "https://a..b/",
    ],
)
def test_what_is_no_plain_http_address_is_refused_and_not_quoted(url):
    with pytest.raises(ConfigError) as refusal:
        target(hook(url))
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.0/8"),
        ("fd12::1", "fd12::/16"),
        ("169.254.7.7", "169.254.7.0/24"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
    ],
)
def test_a_name_that_leads_inside_needs_the_network(address, network):
    with pytest.raises(OutsideError, match="allow_networks"):
        allowed(target(hook("https://hooks.example/")), leads_to(address))
    to = target(hook("https://hooks.example/", allow_networks=(network,)))
    assert allowed(to, leads_to(address)) == [address]


def test_of_several_addresses_only_the_good_ones_are_used():
    to = target(hook("https://hooks.example/"))
    asked = leads_to("10.0.0.1", "93.184.216.34", "169.254.169.254", "2606:2800:220:1::1")
    assert allowed(to, asked) == ["93.184.216.34", "2606:2800:220:1::1"]


def test_no_more_addresses_are_tried_than_a_deadline_allows():
    to = target(hook("https://hooks.example/"))
    assert len(allowed(to, leads_to(*(f"93.184.216.{n}" for n in range(100))))) == 4


def test_localhost_must_be_this_machine():
    to = target(hook("http://localhost:9/hook"))
    assert allowed(to, leads_to("::1", "127.0.0.1")) == ["::1", "127.0.0.1"]
    with pytest.raises(OutsideError, match="allow_networks"):
        allowed(to, leads_to("10.0.0.1"))


def test_plain_http_needs_permission_outside():
    with pytest.raises(ConfigError, match="allow_http"):
        target(hook("http://hooks.example/"))
    with pytest.raises(ConfigError, match="allow_http"):
        target(hook("http://93.184.216.34/"))
    with pytest.raises(ConfigError, match="allow_http"):
        target(hook("http://[::ffff:93.184.216.34]/"))
    to = target(hook("http://hooks.example/", allow_http=True))
    assert allowed(to, leads_to("93.184.216.34")) == ["93.184.216.34"]


def test_plain_http_to_an_allowed_network_does_not_reach_further():
    to = target(hook("http://siem.lan/", allow_networks=("10.0.0.0/8",)))
    assert allowed(to, leads_to("10.1.1.1")) == ["10.1.1.1"]
    with pytest.raises(OutsideError, match="allow_http"):
        allowed(to, leads_to("93.184.216.34"))


def test_a_network_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="like 10"):
        target(hook("https://hooks.example/", allow_networks=("10.0.0.1/8",)))


def test_what_is_shown_has_no_path_and_no_query():
    to = target(hook("https://hooks.example/T000/B000/XXXX?token=hunter2"))
    assert to.place == "https://hooks.example:443"
    assert to.path == "/T000/B000/XXXX?token=hunter2"


@given(st.text(max_size=200))
def test_no_text_makes_it_fail_otherwise_than_by_refusal(text):
    for url in (text, f"http://{text}", f"https://{text}/"):
        try:
            to = target(hook(url))
        except ConfigError:
            continue
        assert to.scheme in ("http", "https")
        assert not set(to.host + to.path) & set("\r\n\0 ")


@given(st.ip_addresses().map(str))
def test_a_name_never_leads_to_what_is_not_public(address):
    from ipaddress import ip_address

    try:
        found = allowed(target(hook("https://hooks.example/")), leads_to(address))
    except OutsideError:
        return
    parsed = ip_address(found[0])
    inner = getattr(parsed, "ipv4_mapped", None) or parsed
    assert inner.is_global
    assert not inner.is_multicast
