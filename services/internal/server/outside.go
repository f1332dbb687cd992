package server

import (
	"fmt"
	"net/netip"
	"strings"
)

// Outside says where the suite may ask servers that are not its own.
type Outside struct {
	// Networks are private ones to which it may go.
	Networks []netip.Prefix
	// Loopback tells whether it may go to the machine itself, and without TLS: so
	// where it is served without TLS itself, which is on loopback only.
	Loopback bool
}

// networks are those of a flag, as --outside-networks.
type networks []netip.Prefix

func (n networks) String() string {
	var parts []string
	for _, prefix := range n {
		parts = append(parts, prefix.String())
	}
	return strings.Join(parts, ",")
}

// Set reads networks with commas between them, in the place of those from before.
func (n *networks) Set(text string) error {
	*n = nil
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil || prefix != prefix.Masked() {
			return fmt.Errorf("expected networks as 10.1.0.0/16, got %q", part)
		}
		*n = append(*n, prefix)
	}
	return nil
}

func (c *Config) outside() Outside {
	return Outside{Networks: c.OutsideNetworks, Loopback: !c.encrypted()}
}
