// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Policy says to which addresses requests may go. The zero Policy allows public addresses over https and nothing else.
type Policy struct {
	// AllowedNetworks opens special networks (loopback, private, ...), and plain http, to the addresses it holds. It
	// does not close anything, and link-local and cloud metadata addresses stay closed whatever it holds.
	AllowedNetworks []netip.Prefix
}

// DeniedError reports a connection that was not opened because the policy forbids its address.
type DeniedError struct {
	Address netip.Addr
	Reason  string // what is wrong with it, in words for the owner of a subscription
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("egress to %s denied: %s", e.Address, e.Reason)
}

// Check returns nil if a connection to addr may be opened and a *DeniedError if not; encrypted means https. An IPv6
// address that leads to an IPv4 address (mapped, NAT64, 6to4, Teredo, ...) is judged by that one too.
func (p Policy) Check(addr netip.Addr, encrypted bool) error {
	if reason := p.refusal(addr.Unmap().WithZone(""), encrypted); reason != "" {
		return &DeniedError{Address: addr, Reason: reason}
	}
	return nil
}

func (p Policy) refusal(addr netip.Addr, encrypted bool) string {
	hidden := false
	for _, e := range embeddings {
		if !e.network.Contains(addr) {
			continue
		}
		hidden = hidden || e.instead
		if reason := p.refusalOfEmbedded(e, e.extract(addr), encrypted); reason != "" {
			return reason
		}
	}
	if hidden {
		return ""
	}
	return p.refusalOfOne(addr, encrypted)
}

func (p Policy) refusalOfEmbedded(e embedding, v4 netip.Addr, encrypted bool) string {
	reason := p.refusalOfOne(v4, encrypted || !e.instead) // beside another address, that one answers for plain http
	if reason == "" || e.guess && kindOf(v4, never) == "" {
		return ""
	}
	return fmt.Sprintf("it leads to %s, and %s", v4, reason)
}

// refusalOfOne judges an address for itself, "" if it is allowed.
func (p Policy) refusalOfOne(addr netip.Addr, encrypted bool) string {
	if kind := kindOf(addr, never); kind != "" {
		return fmt.Sprintf("a %s address is never allowed", kind)
	}
	if p.names(addr) {
		return ""
	}
	kind := kindOf(addr, special)
	if kind == "" && addr.Is6() && !globalIPv6.Contains(addr) {
		kind = "reserved"
	}
	switch {
	case kind != "":
		return fmt.Sprintf("it is a %s address that no allowed network holds", kind)
	case !encrypted:
		return "plain http needs an allowed network that holds the address"
	default:
		return ""
	}
}

func (p Policy) names(addr netip.Addr) bool {
	for _, network := range p.AllowedNetworks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// ParseNetworks reads the entries of an allow-list: networks (10.0.0.0/8, fd12::/16) or single addresses. Every entry
// that is neither, or that could never have an effect, is reported, all of them in one error.
func ParseNetworks(entries []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(entries))
	var problems []error
	for _, entry := range entries {
		network, err := parseNetwork(strings.TrimSpace(entry))
		if err != nil {
			problems = append(problems, fmt.Errorf("allowed network %q: %w", entry, err))
			continue
		}
		networks = append(networks, network)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return networks, nil
}

func parseNetwork(entry string) (netip.Prefix, error) {
	network, err := parsePrefixOrAddr(entry)
	if err != nil {
		return netip.Prefix{}, errors.New("want a network such as 10.0.0.0/8 or an address such as 10.1.2.3")
	}
	if masked := network.Masked(); masked != network {
		return netip.Prefix{}, fmt.Errorf("it has bits set beyond its length: write %s", masked)
	}
	if network.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("write an IPv4 network in its IPv4 form")
	}
	for _, b := range never {
		if b.network.Overlaps(network) && b.network.Bits() <= network.Bits() {
			return netip.Prefix{}, fmt.Errorf("%s addresses are never allowed", b.kind)
		}
	}
	return network, nil
}

func parsePrefixOrAddr(entry string) (netip.Prefix, error) {
	if strings.Contains(entry, "/") {
		return netip.ParsePrefix(entry)
	}
	addr, err := netip.ParseAddr(entry)
	if err != nil {
		return netip.Prefix{}, err
	}
	return addr.Prefix(addr.BitLen())
}
