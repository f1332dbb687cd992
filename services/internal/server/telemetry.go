package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"latchkey.dev/services/internal/lease"
)

// metrics are served to Prometheus; nil where that is off.
type metrics struct {
	registry *prometheus.Registry
	calls    *grpcprom.ServerMetrics
	listener net.Listener
	server   *http.Server
}

func listenMetrics(addr string) (*metrics, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics on %s: %w (choose another with --metrics-listen)", addr, cause(err))
	}
	m := &metrics{
		registry: prometheus.NewRegistry(), listener: l,
		calls: grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram()),
	}
	m.registry.MustRegister(m.calls, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	m.server = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	return m, nil
}

// showLease shows the state of a cache of what is known of callers.
func showLease[V any](m *metrics, source string, c *lease.Cache[V]) {
	labels := prometheus.Labels{"source": source}
	m.gauge("latchkey_lease_held", "Whether the lease of a source is held: 1 or 0.", labels, func() float64 {
		if c.Held() {
			return 1
		}
		return 0
	})
	m.gauge("latchkey_lease_entries", "Facts about callers that are cached.", labels, func() float64 { return float64(c.Len()) })
}

// gauge shows a value that is read when asked for.
func (m *metrics) gauge(name, help string, labels prometheus.Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// tally is a counter of each kind of something, read when asked for.
type tally struct {
	desc *prometheus.Desc
	read func() map[string]int64
}

func (m *metrics) tally(name, help string, read func() map[string]int64) {
	m.registry.MustRegister(tally{prometheus.NewDesc(name, help, []string{"kind"}, nil), read})
}

// Describe implements prometheus.Collector.
func (t tally) Describe(to chan<- *prometheus.Desc) { to <- t.desc }

// Collect implements prometheus.Collector.
func (t tally) Collect(to chan<- prometheus.Metric) {
	for kind, n := range t.read() {
		to <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n), kind)
	}
}

func (m *metrics) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { m.server.Close() })
	defer stop()
	if err := m.server.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// tracing sends spans to an OpenTelemetry collector; nil where that is off.
type tracing struct{ provider *sdktrace.TracerProvider }

func startTracing(ctx context.Context, endpoint, process string) (*tracing, error) {
	if endpoint == "" {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint))
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", endpoint, err)
	}
	return &tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", process))),
	)}, nil
}

func (t *tracing) options() []otelgrpc.Option {
	return []otelgrpc.Option{otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(propagation.TraceContext{})}
}

func (t *tracing) serverOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(t.options()...))}
}

func (t *tracing) dialOptions() []grpc.DialOption {
	if t == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.options()...))}
}

func (t *tracing) close() {
	if t != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		t.provider.Shutdown(ctx)
	}
}
