// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func networks(tb testing.TB, entries ...string) []netip.Prefix {
	tb.Helper()
	parsed, err := ParseNetworks(entries)
	if err != nil {
		tb.Fatal(err)
	}
	return parsed
}

var publicAddresses = []string{
	"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1",
	"198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450::1",
	"::ffff:8.8.8.8", "64:ff9b::808:808",
}

func TestPublicAddressesNeedHTTPS(t *testing.T) {
	for _, address := range publicAddresses {
		t.Run(address, func(t *testing.T) {
			addr := netip.MustParseAddr(address)
			if err := (Policy{}).Check(addr, true); err != nil {
				t.Errorf("https: %v, want it allowed", err)
			}
			wantDenied(t, Policy{}.Check(addr, false), "plain http needs an allowed network")
		})
	}
}

// specialAddresses are refused as what kind says, unless the networks of allow are opened.
var specialAddresses = map[string]struct{ allow, kind string }{
	"0.0.0.0":              {"0.0.0.0/8", "unspecified"},
	"0.1.2.3":              {"0.0.0.0/8", "unspecified"},
	"10.0.0.1":             {"10.0.0.0/8", "private"},
	"100.64.0.1":           {"100.64.0.0/10", "shared"},
	"100.127.255.255":      {"100.64.0.0/10", "shared"},
	"127.0.0.1":            {"127.0.0.1", "loopback"},
	"127.255.255.254":      {"127.0.0.0/8", "loopback"},
	"172.16.0.1":           {"172.16.0.0/12", "private"},
	"172.31.255.255":       {"172.16.0.0/12", "private"},
	"192.0.0.1":            {"192.0.0.0/24", "reserved"},
	"192.0.2.1":            {"192.0.2.0/24", "documentation"},
	"192.88.99.1":          {"192.88.99.0/24", "6to4 relay"},
	"192.168.1.1":          {"192.168.0.0/16", "private"},
	"198.18.0.1":           {"198.18.0.0/15", "benchmark"},
	"198.19.255.255":       {"198.18.0.0/15", "benchmark"},
	"198.51.100.1":         {"198.51.100.0/24", "documentation"},
	"203.0.113.1":          {"203.0.113.0/24", "documentation"},
	"224.0.0.1":            {"224.0.0.0/4", "multicast"},
	"239.255.255.255":      {"224.0.0.0/4", "multicast"},
	"240.0.0.1":            {"240.0.0.0/4", "reserved"},
	"255.255.255.255":      {"255.255.255.255", "reserved"},
	"::":                   {"::", "unspecified"},
	"::1":                  {"::1", "loopback"},
	"::ffff:127.0.0.1":     {"127.0.0.0/8", "loopback"},
	"::ffff:7f00:1":        {"127.0.0.0/8", "loopback"},
	"::ffff:10.0.0.1":      {"10.0.0.0/8", "private"},
	"::127.0.0.1":          {"::/96", "IPv4-compatible"},
	"64:ff9b::a00:1":       {"10.0.0.0/8", "it leads to 10.0.0.1, and it is a private"},
	"64:ff9b::127.0.0.1":   {"127.0.0.0/8", "it leads to 127.0.0.1, and it is a loopback"},
	"64:ff9b:1::808:808":   {"64:ff9b:1::/96", "local NAT64"},
	"100::1":               {"100::/64", "reserved"},
	"2001::1":              {"2001::/32,0.0.0.0/0", "it leads to"},
	"2001:2::1":            {"2001:2::/48", "benchmark"},
	"2001:10::1":           {"2001:10::/28", "reserved"},
	"2001:db8::1":          {"2001:db8::/32", "documentation"},
	"2002:808:808::1":      {"2002::/16", "6to4"},
	"2002:a00:1::1":        {"2002::/16,10.0.0.0/8", "it leads to 10.0.0.1, and it is a private"},
	"3fff::1":              {"3fff::/20", "documentation"},
	"4000::1":              {"4000::/3", "reserved"},
	"5f00::1":              {"5f00::/16", "reserved"},
	"fc00::1":              {"fc00::/7", "unique local"},
	"fd12:3456::1":         {"fd12:3456::/32", "unique local"},
	"fec0::1":              {"fec0::/10", "reserved"},
	"ff02::1":              {"ff00::/8", "multicast"},
	"::ffff:0:192.168.0.1": {"::ffff:0:0:0/96,192.168.0.0/16", "it leads to 192.168.0.1"},
}

func TestSpecialAddressesNeedAnAllowedNetwork(t *testing.T) {
	for address, c := range specialAddresses {
		t.Run(address, func(t *testing.T) {
			addr := netip.MustParseAddr(address)
			closed := Policy{AllowedNetworks: networks(t, "192.0.2.77", "2001:db8:77::/48")}
			wantDenied(t, closed.Check(addr, true), c.kind)
			wantDenied(t, closed.Check(addr, false), c.kind)
			open := Policy{AllowedNetworks: networks(t, strings.Split(c.allow, ",")...)}
			for _, encrypted := range []bool{true, false} {
				if err := open.Check(addr, encrypted); err != nil {
					t.Errorf("encrypted %v, with %s allowed: %v", encrypted, c.allow, err)
				}
			}
		})
	}
}

func TestAnEmbeddedAddressIsJudgedBesidesItsTunnel(t *testing.T) {
	cases := map[string]struct{ address, allow string }{
		"6to4 of loopback, the tunnel allowed":        {"2002:7f00:1::1", "2002::/16"},
		"6to4 of loopback, loopback allowed":          {"2002:7f00:1::1", "127.0.0.0/8"},
		"Teredo with a private client":                {"2001:0:808:808:0:0:f5ff:fffe", "2001::/32"},
		"NAT64 of loopback, all of IPv6 allowed":      {"64:ff9b::7f00:1", "::/0"},
		"mapped loopback, all of IPv6 allowed":        {"::ffff:127.0.0.1", "::/0"},
		"translated private address, tunnel allowed":  {"::ffff:0:10.0.0.1", "::ffff:0:0:0/96"},
		"a network beside the one that holds it":      {"10.1.0.1", "10.0.0.0/16"},
		"a zone does not hide a unique local address": {"fd12::1%eth0", "fd13::/16"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			policy := Policy{AllowedNetworks: networks(t, c.allow)}
			wantDenied(t, policy.Check(netip.MustParseAddr(c.address), true), "no allowed network holds")
		})
	}
}

var neverAllowed = []string{
	"169.254.169.254", "169.254.170.2", "169.254.0.1", "169.254.255.255", "100.100.100.200", "168.63.129.16",
	"192.0.0.192", "fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
	"fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:100::100:200", "fd00:a9fe:a9fe::1",
	"::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254", "::ffff:0:169.254.169.254",
	"64:ff9b::a9fe:a9fe", "64:ff9b::100.100.100.200", "2002:a9fe:a9fe::1",
	"2001:0:a9fe:a9fe::1", "2001:0:808:808:0:0:5601:5601",
	"64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1::a9:fea9:fe00:0",
}

func TestMetadataAndLinkLocalAddressesAreNeverAllowed(t *testing.T) {
	everything := Policy{AllowedNetworks: networks(t, "0.0.0.0/0", "::/0")}
	for _, address := range neverAllowed {
		t.Run(address, func(t *testing.T) {
			addr := netip.MustParseAddr(address)
			wantDenied(t, everything.Check(addr, true), "never allowed")
			wantDenied(t, everything.Check(addr, false), "never allowed")
		})
	}
}

func wantDenied(t *testing.T, err error, reason string) {
	t.Helper()
	var denied *DeniedError
	if !errors.As(err, &denied) {
		t.Errorf("got %v, want a DeniedError", err)
		return
	}
	if !strings.Contains(denied.Reason, reason) {
		t.Errorf("reason %q, want %q in it", denied.Reason, reason)
	}
}

func TestParseNetworksReadsNetworksAndAddresses(t *testing.T) {
	got, err := ParseNetworks([]string{"10.0.0.0/8", " 127.0.0.1 ", "::1", "fd12::/16", "0.0.0.0/0", "fc00::/7"})
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fd12::/16"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("fc00::/7"),
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
}

func TestParseNetworksNamesWhatIsWrong(t *testing.T) {
	cases := map[string]string{
		"localhost":             "want a network such as 10.0.0.0/8",
		"":                      "want a network such as 10.0.0.0/8",
		"10.0.0.0/33":           "want a network such as 10.0.0.0/8",
		"10.0.0/8":              "want a network such as 10.0.0.0/8",
		"010.0.0.1":             "want a network such as 10.0.0.0/8",
		"[::1]":                 "want a network such as 10.0.0.0/8",
		"fe80::1%eth0":          "want a network such as 10.0.0.0/8",
		"10.0.0.1/8":            "write 10.0.0.0/8",
		"::ffff:10.0.0.0/104":   "IPv4 form",
		"::ffff:10.0.0.1":       "IPv4 form",
		"169.254.169.254":       "link-local addresses are never allowed",
		"169.254.0.0/16":        "link-local addresses are never allowed",
		"100.100.100.200":       "cloud metadata addresses are never allowed",
		"fe80::/64":             "link-local addresses are never allowed",
		"https://10.0.0.1/hook": "want a network such as 10.0.0.0/8",
	}
	for entry, want := range cases {
		t.Run(entry, func(t *testing.T) {
			_, err := ParseNetworks([]string{"10.0.0.0/8", entry, "nonsense"})
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range []string{`allowed network "` + entry + `": `, want, `allowed network "nonsense"`} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q, want %q in it", err, part)
				}
			}
		})
	}
}

func FuzzParseNetworks(f *testing.F) {
	for _, entry := range []string{"10.0.0.0/8", "::1", "fe80::/10", "::ffff:0:0/96", "1.2.3.4/32", "a", "1::%z", "/"} {
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		parsed, err := ParseNetworks([]string{entry})
		if err != nil {
			if parsed != nil {
				t.Fatalf("%q gives both %v and %v", entry, parsed, err)
			}
			return
		}
		again, err := ParseNetworks([]string{parsed[0].String()})
		if err != nil || again[0] != parsed[0] {
			t.Fatalf("%q reads as %s, which reads as %v, %v", entry, parsed[0], again, err)
		}
		if err := (Policy{AllowedNetworks: parsed}).Check(parsed[0].Addr(), false); err != nil &&
			!strings.Contains(err.Error(), "never allowed") && !strings.Contains(err.Error(), "it leads to") {
			t.Fatalf("%q is allowed, and yet: %v", entry, err)
		}
	})
}

// FuzzCheck compares the policy with what net/netip knows about addresses by itself.
func FuzzCheck(f *testing.F) {
	for _, address := range []string{"127.0.0.1", "10.0.0.1", "::1", "fe80::1", "fd00:ec2::254", "ff02::1", "2a00::1"} {
		slice := netip.MustParseAddr(address).AsSlice()
		f.Add(slice)
	}
	everything := Policy{AllowedNetworks: networks(f, "0.0.0.0/0", "::/0")}
	f.Fuzz(func(t *testing.T, octets []byte) {
		addr, ok := netip.AddrFromSlice(octets)
		if !ok {
			return
		}
		inner := addr.Unmap()
		if everything.Check(addr, false) == nil && inner.IsLinkLocalUnicast() {
			t.Fatalf("%s is allowed", addr)
		}
		if (Policy{}).Check(addr, false) == nil {
			t.Fatalf("plain http to %s is allowed by an empty policy", addr)
		}
		special := inner.IsLoopback() || inner.IsPrivate() || inner.IsMulticast() || inner.IsUnspecified() ||
			!inner.IsGlobalUnicast()
		if special && (Policy{}).Check(addr, true) == nil {
			t.Fatalf("%s is allowed by an empty policy", addr)
		}
	})
}
