package server

import (
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/journal"
)

// openJournals offers to read the journals of the parts that keep something. Each part
// then says what is shown of its own.
func (p *Process) openJournals() {
	p.journals = map[string]*journal.Source{}
	for _, part := range p.parts {
		if db, ok := p.stores[part.Name]; ok {
			p.journals[part.Name] = journal.NewSource(part.Name, db)
		}
	}
	journalpb.RegisterJournalServiceServer(p.grpc, journal.NewServer(p.journals, p.now))
}

// Journals returns the journals of the parts, by name.
func (p *Process) Journals() map[string]*journal.Source { return p.journals }
