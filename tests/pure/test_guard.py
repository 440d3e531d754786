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


REGISTRY = [  # IANA's special-purpose registries: block, an address in it, how far it reaches
    ("0.0.0.0/8", "0.1.2.3", "never"),
    ("10.0.0.0/8", "10.255.0.1", "private"),
    ("100.64.0.0/10", "100.127.255.255", "private"),
    ("127.0.0.0/8", "127.255.0.1", "private"),
    ("169.254.0.0/16", "169.254.169.254", "never"),
    ("172.16.0.0/12", "172.31.255.255", "private"),
    ("192.0.0.0/24", "192.0.0.1", "never"),
    ("192.0.0.0/29, DS-Lite", "192.0.0.7", "never"),
    ("192.0.0.8/32, dummy", "192.0.0.8", "never"),
    ("192.0.0.9/32, PCP", "192.0.0.9", "never"),
    ("192.0.0.10/32, TURN", "192.0.0.10", "never"),
    ("192.0.0.170/32, NAT64 discovery", "192.0.0.170", "never"),
    ("192.0.0.192/32, metadata", "192.0.0.192", "never"),
    ("192.0.2.0/24", "192.0.2.1", "private"),
    ("192.31.196.0/24, AS112", "192.31.196.1", "public"),
    ("192.52.193.0/24, AMT", "192.52.193.1", "public"),
    ("192.88.99.0/24, 6to4 relay", "192.88.99.1", "never"),
    ("192.168.0.0/16", "192.168.255.1", "private"),
    ("192.175.48.0/24, AS112", "192.175.48.1", "public"),
    ("198.18.0.0/15", "198.19.255.255", "private"),
    ("198.51.100.0/24", "198.51.100.9", "private"),
    ("203.0.113.0/24", "203.0.113.9", "private"),
    ("224.0.0.0/4", "239.255.255.250", "never"),
    ("240.0.0.0/4", "240.0.0.1", "never"),
    ("255.255.255.255/32", "255.255.255.255", "never"),
    ("::1/128", "::1", "private"),
    ("::/128", "::", "never"),
    ("::/96, IPv4-compatible", "::10.0.0.1", "never"),
    ("::/96, IPv4-compatible, public", "::93.184.216.34", "never"),
    ("::ffff:0:0/96", "::ffff:10.0.0.1", "private"),
    ("::ffff:0:0/96, public", "::ffff:93.184.216.34", "public"),
    ("::ffff:0:0/96, metadata", "::ffff:169.254.169.254", "never"),
    ("::ffff:0:0:0/96, translated", "::ffff:0:10.0.0.1", "never"),
    ("64:ff9b::/96, NAT64", "64:ff9b::10.0.0.1", "private"),
    ("64:ff9b::/96, public", "64:ff9b::93.184.216.34", "public"),
    ("64:ff9b::/96, metadata", "64:ff9b::169.254.169.254", "never"),
    ("64:ff9b:1::/48, local NAT64", "64:ff9b:1::10.0.0.1", "never"),
    ("100::/64, discard", "100::1", "never"),
    ("100:0:0:1::/64, dummy", "100:0:0:1::1", "never"),
    ("2001::/32, Teredo", "2001:0:53aa:64c:0:fbff:f5ff:fffe", "never"),
    ("2001:1::1/128, PCP", "2001:1::1", "never"),
    ("2001:1::2/128, TURN", "2001:1::2", "never"),
    ("2001:1::3/128, SRP", "2001:1::3", "never"),
    ("2001:2::/48, benchmarks", "2001:2::1", "never"),
    ("2001:3::/32, AMT", "2001:3::1", "never"),
    ("2001:4:112::/48, AS112", "2001:4:112::1", "never"),
    ("2001:10::/28, ORCHID", "2001:10::1", "never"),
    ("2001:20::/28, ORCHIDv2", "2001:20::1", "never"),
    ("2001:30::/28, drones", "2001:30::1", "never"),
    ("2001:db8::/32", "2001:db8::1", "private"),
    ("2002::/16, 6to4", "2002:a00:1::1", "never"),
    ("2002::/16, 6to4, public", "2002:5db8:d822::1", "never"),
    ("2620:4f:8000::/48, AS112", "2620:4f:8000::1", "public"),
    ("3fff::/20", "3fff:fff::1", "private"),
    ("5f00::/16, SRv6", "5f00::1", "never"),
    ("fc00::/7", "fdff::1", "private"),
    ("metadata in fc00::/7", "fd00:ec2::254", "never"),
    ("fe80::/10", "fe80::1", "never"),
    ("fec0::/10, site-local", "fec0::1", "private"),
    ("ff00::/8", "ff0e::1", "never"),
    ("unassigned", "4000::1", "never"),
    ("unassigned", "e000::1", "never"),
    ("ISATAP, private", "2606:2800:220:1:0:5efe:10.0.0.1", "private"),
    ("ISATAP, private, of a unique address", "2606:2800:220:1:200:5efe:192.168.0.1", "private"),
    ("ISATAP, metadata", "2606:2800:220:1::5efe:169.254.169.254", "never"),
    ("ISATAP, link-local", "fe80::5efe:10.0.0.1", "never"),
    ("ISATAP, unique local", "fd12::5efe:93.184.216.34", "private"),
    ("ISATAP, public", "2606:2800:220:1::5efe:93.184.216.34", "public"),
    ("public", "93.184.216.34", "public"),
    ("public", "2606:2800:220:1::1", "public"),
    ("beside 10.0.0.0/8", "11.0.0.0", "public"),
    ("beside 100.64.0.0/10", "100.128.0.0", "public"),
    ("beside 172.16.0.0/12", "172.32.0.0", "public"),
    ("beside 192.0.0.0/24", "192.0.1.0", "public"),
    ("beside 198.18.0.0/15", "198.20.0.0", "public"),
    ("beside 2001::/23", "2001:200::1", "public"),
]


@pytest.mark.parametrize(("block", "address", "expected"), REGISTRY)
def test_a_name_leads_only_where_the_registries_say_that_it_is_the_internet(
    block, address, expected
):
    named = target(hook("https://hooks.example/"))
    literal = f"[{address}]" if ":" in address else address
    if expected == "public":
        assert allowed(named, leads_to(address)) == [address]
    else:
        with pytest.raises(OutsideError, match="allow_networks"):
            allowed(named, leads_to(address))
    if expected == "never":
        with pytest.raises(ConfigError, match="allow_networks"):
            target(hook(f"https://{literal}/"))
    else:
        assert target(hook(f"https://{literal}/")).literal
    network = f"{address}/{128 if ':' in address else 32}"
    assert allowed(
        target(hook("https://hooks.example/", allow_networks=(network,))), leads_to(address)
    )


@pytest.mark.parametrize(
    "address", ["fe80::1%eth0", "fd00:ec2::254%1", "ff02::1%lo", "fec0::1%2", "::ffff:10.0.0.1%x"]
)
def test_an_interface_in_an_address_hides_nothing(address):
    with pytest.raises(OutsideError, match="allow_networks"):
        allowed(target(hook("https://hooks.example/")), leads_to(address))


@pytest.mark.parametrize(
    "address", ["2002:a01:203::1", "64:ff9b::10.1.2.3", "::10.1.2.3", "2606::5efe:10.1.2.3"]
)
def test_an_allowed_network_does_not_reach_further_by_a_tunnel(address):
    to = target(hook("https://hooks.example/", allow_networks=("10.0.0.0/8",)))
    with pytest.raises(OutsideError, match="allow_networks"):
        allowed(to, leads_to(address))


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
