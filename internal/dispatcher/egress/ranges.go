// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import "net/netip"

// block is a network that is not simply public, with the words that tell a user what it is.
type block struct {
	network netip.Prefix
	kind    string
}

// never holds what no allow-list opens: link-local networks, where clouds answer with credentials, and the addresses
// outside them at which clouds do the same.
var never = []block{
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("100.100.100.200/32"), "cloud metadata"},    // Alibaba Cloud
	{netip.MustParsePrefix("fd00:100::100:200/128"), "cloud metadata"}, // Alibaba Cloud
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"},      // Azure, the host's agent
	{netip.MustParsePrefix("192.0.0.192/32"), "cloud metadata"},        // Oracle Cloud, classic
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "cloud metadata"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "cloud metadata"},         // AWS: metadata, pod identity, DNS, time
	{netip.MustParsePrefix("fd20:ce::254/128"), "cloud metadata"},      // Google Cloud
	{netip.MustParsePrefix("fd00:42::42/128"), "cloud metadata"},       // Scaleway
	{netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"), "cloud metadata"}, // Akamai (Linode)
}

// special holds what only the allow-list opens: the IANA special-purpose address registries (RFC 6890 and what
// followed it) without the entries that the registries call globally reachable.
var special = []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared (carrier-grade NAT)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmark"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("2001::/32"), "Teredo"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmark"},
	{netip.MustParsePrefix("2001::/23"), "reserved"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("fc00::/7"), "unique local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// globalIPv6 is all of IPv6 that is assigned to the public Internet; what lies outside is special without a name.
var globalIPv6 = netip.MustParsePrefix("2000::/3")

// kindOf returns the kind of the first block that holds addr, "" if none does.
func kindOf(addr netip.Addr, blocks []block) string {
	for _, b := range blocks {
		if b.network.Contains(addr) {
			return b.kind
		}
	}
	return ""
}

// embedding says where the addresses of an IPv6 network carry an IPv4 address to which their traffic is led.
type embedding struct {
	network  netip.Prefix
	octets   [4]int
	inverted bool // the octets are stored complemented
	instead  bool // the translation hides the IPv6 address: judge the IPv4 address instead of it, not besides
	guess    bool // one of several layouts: what it gives counts only if no list may open it
}

var embeddings = []embedding{
	{network: netip.MustParsePrefix("64:ff9b::/96"), octets: [4]int{12, 13, 14, 15}, instead: true}, // NAT64, RFC 6052
	{network: netip.MustParsePrefix("2002::/16"), octets: [4]int{2, 3, 4, 5}},                       // 6to4, RFC 3056
	{network: netip.MustParsePrefix("2001::/32"), octets: [4]int{4, 5, 6, 7}},                       // Teredo's server
	{network: netip.MustParsePrefix("2001::/32"), octets: [4]int{12, 13, 14, 15}, inverted: true},   // and client
	{network: netip.MustParsePrefix("::ffff:0:0:0/96"), octets: [4]int{12, 13, 14, 15}},             // SIIT, RFC 2765
	{network: netip.MustParsePrefix("::/96"), octets: [4]int{12, 13, 14, 15}, guess: true},
	// Local NAT64 (RFC 8215): the network does not say which of RFC 6052's layouts the site has chosen.
	{network: netip.MustParsePrefix("64:ff9b:1::/48"), octets: [4]int{6, 7, 9, 10}, guess: true},
	{network: netip.MustParsePrefix("64:ff9b:1::/48"), octets: [4]int{7, 9, 10, 11}, guess: true},
	{network: netip.MustParsePrefix("64:ff9b:1::/48"), octets: [4]int{9, 10, 11, 12}, guess: true},
	{network: netip.MustParsePrefix("64:ff9b:1::/48"), octets: [4]int{12, 13, 14, 15}, guess: true},
}

// extract returns the IPv4 address that addr, which is in e.network, carries.
func (e embedding) extract(addr netip.Addr) netip.Addr {
	from := addr.As16()
	var v4 [4]byte
	for i, octet := range e.octets {
		v4[i] = from[octet]
		if e.inverted {
			v4[i] = ^v4[i]
		}
	}
	return netip.AddrFrom4(v4)
}
