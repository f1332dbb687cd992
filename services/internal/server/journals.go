package server

import (
	"context"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/journal"
)

// openJournals offers to read the journals of the parts that keep something. Each part
// then says what is shown of its own.
func (p *Process) openJournals() {
	p.journals = map[string]*journal.Source{}
	for _, part := range p.parts {
		db, ok := p.stores[part.Name]
		if !ok {
			continue
		}
		src := journal.NewSource(part.Name, db)
		journal.ShowEvent(src, journalpb.JournalService_GetRetention_FullMethodName, func(context.Context, *journalpb.RetentionChanged) bool { return true })
		p.journals[part.Name] = src
		p.goAlone(part.Name, "journal", src.CompactForever(p.log.With("service", part.Name)))
	}
	draining, _ := until(p.ctx, p.draining)
	journalpb.RegisterJournalServiceServer(p.grpc, journal.NewServer(draining, p.journals, p.now))
}

// Journals returns the journals of the parts, by name.
func (p *Process) Journals() map[string]*journal.Source { return p.journals }
