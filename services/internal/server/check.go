package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// check is the value of --check.
type check string

const (
	noCheck check = ""
	ready   check = "ready" // serves calls
	live    check = "live"  // answers, if only to say that it does not serve yet
)

func (c *check) String() string { return string(*c) }

// IsBoolFlag lets --check stand alone for --check=ready.
func (c *check) IsBoolFlag() bool { return true }

func (c *check) Set(text string) error {
	switch text {
	case "true":
		*c = ready
	case "false":
		*c = noCheck
	case string(ready), string(live):
		*c = check(text)
	default:
		return fmt.Errorf("expected ready or live, got %q", text)
	}
	return nil
}

// ask asks the process that runs with the same configuration how it is.
func ask(ctx context.Context, c *Config) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	certs, err := c.certificates(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	conn, err := grpc.NewClient(net.JoinHostPort(host, port), grpc.WithTransportCredentials(selfCredentials(certs)))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("no answer from %s: %w", c.Listen, err)
	case c.Check == ready && resp.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return fmt.Errorf("%s answers, but is %s", c.Listen, resp.GetStatus())
	}
	return nil
}
