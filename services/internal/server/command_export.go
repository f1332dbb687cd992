package server

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

func exportCommand() command {
	return command{
		name: "export", operands: "ORGANIZATION FILE", summary: "write one organization into a file, also while the services run",
		about: `Writes everything that the services keep of one organization, named by its id, into FILE, as backup does: its records with their history, and its people with what they sign in with. Nothing of other organizations is in it. import brings it into another suite, or back into this one when it was erased.

The organization's own history goes whole. The people are in a directory that organizations share, and of that only the records go, as they are at one revision; the summary says which. All services are cut at one instant, and the directory a moment later: suspend the organization first to have both the same.

SECRETS: the file has the hashes of passwords and the open secrets of authenticator apps, unless --without-credentials is given. Only the caller may read it: keep it as safe as the store, or encrypt it, with --recipient for who has a key that keygen made, or with --passphrase-file. Sessions, remembered devices and codes never go along; API keys and the secrets of OAuth clients only with --with-keys.`,
		shared: append([]string{"blobs", "seal-key-file", "passkey-domain", "issuer"}, toStores...),
		declare: func(f *flag.FlagSet) action {
			withBlobs := f.Bool("with-blobs", false, "take photos and videos along, from --blobs")
			withKeys := f.Bool("with-keys", false, "take along what API keys and OAuth clients are recognized by, so that they work there too")
			recipients := encrypting(f)
			withoutCredentials := f.Bool("without-credentials", false, "leave out passwords, authenticator apps, recovery codes and passkeys: people ask for a new password")
			return func(ctx context.Context, in *invocation) (_ report, err error) {
				if len(in.operands) != 2 {
					return nil, usageError("expected the id of an ORGANIZATION, and one FILE to write")
				}
				if in.recipients, err = recipients(); err != nil {
					return nil, err
				}
				kinds := map[store.Kind]bool{store.Keys: *withKeys, store.Credentials: !*withoutCredentials, store.Passkeys: !*withoutCredentials}
				return in.export(ctx, in.operands[0], in.operands[1], kinds, *withBlobs)
			}
		},
	}
}

// exported is the outcome of export.
type exported struct {
	Organization string `json:"organization"`
	taken
	Revisions map[string]int64 `json:"revisions"`        // of its own tenant, by service
	Shared    map[string]int64 `json:"shared_revisions"` // of the directory
}

func (e *exported) String() string {
	var at []string
	for _, service := range slices.Sorted(maps.Keys(e.Revisions)) {
		at = append(at, fmt.Sprintf("%s %d", service, e.Revisions[service]))
	}
	for _, service := range slices.Sorted(maps.Keys(e.Shared)) {
		at = append(at, fmt.Sprintf("directory of %s %d", service, e.Shared[service]))
	}
	return fmt.Sprintf("export of organization %s as of %s in %s: %d rows, %d journal entries on top, %d records of the directory, %d blobs, %s%s, in %.1f s\nat revisions: %s",
		e.Organization, e.Cut.UTC().Format(time.RFC3339Nano), e.File, e.Pairs, e.Entries, e.Records, e.Blobs, size(e.Bytes), e.openness(), e.Seconds, strings.Join(at, ", "))
}

func (in *invocation) export(ctx context.Context, organization, target string, kinds map[store.Kind]bool, withBlobs bool) (report, error) {
	start := time.Now()
	s, err := in.openSources(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	sources := s.sources()
	if err := in.isThere(ctx, sources, organization); err != nil {
		return nil, err
	}
	t := &backup.Taking{
		Stores: sources, Now: time.Now, Progress: in.counting("read"), Tenant: organization,
		Export: &backup.Export{Kinds: kinds, PasskeyDomain: in.config.passkeys(in.config.Issuer).Domain, Open: opening(in.box())},
	}
	if withBlobs {
		if t.Blobs, err = in.openBlobs(ctx); err != nil {
			return nil, err
		}
		defer closeBlobs(t.Blobs)
	}
	var counts backup.Counts
	err = in.writeTo(ctx, target, func(w io.Writer) error {
		counts, err = t.Take(ctx, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &exported{Organization: organization, taken: taken{target, t.Cut(), counts, len(in.recipients) > 0, time.Since(start).Seconds()}}
	r.Revisions, r.Shared = t.Revisions()
	if target == "-" {
		in.note("%s", r)
		return nil, nil
	}
	return r, nil
}

// isThere wants an organization to be there.
func (in *invocation) isThere(ctx context.Context, sources []backup.Store, organization string) error {
	for _, s := range sources {
		shared, ok := s.Schema.Tenancy()
		if !ok {
			return fmt.Errorf("%s does not say what of it belongs to an organization", s.Service)
		}
		if shared == "" {
			continue
		}
		there, err := s.Schema.HasOrganization(ctx, s.Pages, organization)
		if err == nil && !there {
			err = fault.NotFound("organization", organization)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// box returns what opens the box that seals secrets, once.
func (in *invocation) box() func() (*seal.Box, error) {
	return sync.OnceValues((&Process{config: in.config}).openSeal)
}

// opening opens secrets with a box.
func opening(box func() (*seal.Box, error)) func(name string, sealed []byte) ([]byte, error) {
	return func(name string, sealed []byte) ([]byte, error) {
		b, err := box()
		if err != nil {
			return nil, err
		}
		return b.Open(name, sealed)
	}
}
