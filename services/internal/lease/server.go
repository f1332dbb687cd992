package lease

import (
	"maps"
	"sync"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	"latchkey.dev/services/internal/fault"
)

// Server is the LeaseService of a process: the hubs in it, by the name of their
// source.
type Server struct {
	leasepb.UnimplementedLeaseServiceServer

	mu   sync.RWMutex
	hubs map[string]*Hub
}

// NewServer returns a server of the hubs.
func NewServer(hubs ...*Hub) *Server {
	s := &Server{hubs: make(map[string]*Hub, len(hubs))}
	for _, h := range hubs {
		s.Add(h)
	}
	return s
}

// Add serves one more hub. A hub of the same source is replaced for new streams.
func (s *Server) Add(h *Hub) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hubs[h.config.Source] = h
}

// Hubs returns the hubs by the name of their source.
func (s *Server) Hubs() map[string]*Hub {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.hubs)
}

// Watch implements LeaseService.Watch.
func (s *Server) Watch(stream watchServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s.mu.RLock()
	h := s.hubs[first.GetSource()]
	s.mu.RUnlock()
	if h == nil {
		return fault.NotFound("source", first.GetSource())
	}
	return h.Serve(stream, first)
}
