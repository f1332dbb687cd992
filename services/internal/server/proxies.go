package server

import (
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the networks of those before the suite whose word counts on where a request
// comes from.
type Proxies []netip.Prefix

// Address returns where a request comes from, or nothing if that is not known. Peer is who has
// connected, "192.0.2.7:4711", and forwarded are the values of X-Forwarded-For, to which each
// proxy has appended from whom it has the request.
//
// SECURITY: it is read from the end, and no further than to the first who is no proxy of ours:
// what stands before that anybody may have written.
func (p Proxies) Address(peer string, forwarded []string) string {
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return ""
	}
	address := at.Addr().Unmap()
	said := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(said) - 1; i >= 0 && p.has(address); i-- {
		before, ok := readForwarded(said[i])
		if !ok {
			break
		}
		address = before
	}
	return address.WithZone("").String()
}

func (p Proxies) has(address netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(address.WithZone("")) })
}

// readForwarded reads an address that a proxy has written, some with a port.
func readForwarded(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), true
	}
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return address.Unmap(), err == nil
}
