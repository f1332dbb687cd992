package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.dev/services/internal/store"
)

// What holds where the URL does not say otherwise.
const (
	maxConns       = 10
	connectTimeout = 5 * time.Second
)

// Open connects to the database at the URL, postgres://user@host/database, and makes the
// tables of the service there if they are missing and that is wanted. It reports whether it
// was this call that made them; of several processes that open an empty database at once one
// did. Its errors are for a person, and never show the URL's password.
func Open(ctx context.Context, url, service string, how store.Opening) (e store.Engine, created bool, err error) {
	opened, created, err := open(ctx, url, service, how)
	if err != nil {
		return nil, false, fmt.Errorf("open the database of %s: %w", service, oneLine{err})
	}
	return opened, created, nil
}

// oneLine is an error of the driver, which writes lists, on one line.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

func open(ctx context.Context, url, service string, how store.Opening) (*Engine, bool, error) {
	s, err := statementsFor(service)
	if err != nil {
		return nil, false, err
	}
	config, err := configOf(url, service)
	if err != nil {
		return nil, false, err
	}
	process := make([]byte, 8)
	_, _ = rand.Read(process) // it never fails
	config.BeforeConnect = proofs(s, process)
	created, err := prepare(ctx, config, service, layouts, how)
	if err != nil {
		return nil, false, fmt.Errorf("%w%s", err, advice(err))
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		return errors.Join(applySettings(ctx, conn), s.prepareAll(ctx, conn))
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, false, err
	}
	return start(pool, s, process), created, nil
}

func start(pool *pgxpool.Pool, s statements, process []byte) *Engine {
	n := pool.Config().MaxConns
	e := &Engine{
		pool: pool, sql: s, process: process, lines: map[string]*line{}, turns: map[string]int64{},
		conns: n, readers: slotsOf(n), writers: slotsOf(n), patience: patience, resolveLimit: resolveLimit,
	}
	background, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.sweeper.Go(func() { e.sweepForever(background) })
	return e
}

// advice says what to do about an error, if that is known.
func advice(err error) string {
	if strings.Contains(err.Error(), "refused TLS") {
		return " (a database that is not on this machine is spoken to with TLS; add sslmode=disable to the URL if nobody else can read the network)"
	}
	return ""
}

func configOf(text, service string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, err
	}
	_, query, _ := strings.Cut(text, "?")
	given, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query of the database's URL is malformed")
	}
	// SECURITY: what is not said to be otherwise is encrypted, with a server that has
	// proved who it is.
	if !given.Has("sslmode") && os.Getenv("PGSSLMODE") == "" && remote(config.ConnConfig) {
		separator := "?"
		if strings.Contains(text, "?") {
			separator = "&"
		}
		if config, err = pgxpool.ParseConfig(text + separator + "sslmode=verify-full"); err != nil {
			return nil, err
		}
	}
	if !given.Has("pool_max_conns") {
		config.MaxConns = maxConns
	}
	config.MaxConns = max(2, config.MaxConns)
	if !given.Has("connect_timeout") {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "latchkey " + service
	}
	config.ConnConfig.DialFunc = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}).DialContext
	config.BeforeConnect = neverCancel
	// A connection that has died in the pool is found by its first use.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	return config, nil
}

// remote reports whether the database may be on another machine.
func remote(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
			continue
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			return true
		}
	}
	return false
}

// neverCancel keeps the driver from asking the server to cancel what a broken connection
// was doing, which it would do on a connection of its own. It may be a commit that waits
// for a standby: cancelled, it is visible and not safe.
func neverCancel(_ context.Context, config *pgx.ConnConfig) error {
	var connected atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connected.Load() {
			return nil, errors.New("the engine cancels nothing")
		}
		return dial(ctx, network, addr)
	}
	config.Config.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		connected.Store(true)
		return nil
	}
	return nil
}

// applySettings makes the settings that the URL does not have: all at once, or if the
// database does not know one of them, one by one.
func applySettings(ctx context.Context, conn *pgx.Conn) error {
	var statements []string
	for name, statement := range settings {
		if conn.Config().RuntimeParams[name] == "" {
			statements = append(statements, statement)
		}
	}
	_, err := conn.Exec(ctx, strings.Join(statements, "; "))
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused {
		return err
	}
	for _, statement := range statements {
		_, err := conn.Exec(ctx, statement)
		if _, refused := errors.AsType[*pgconn.PgError](err); err != nil && !refused {
			return err
		}
	}
	return nil
}
