package server

import (
	"context"
	"errors"
	"flag"
	"io"
	"time"

	"gocloud.dev/blob"

	"latchkey.dev/services/internal/store/backup"
)

func copyCommand() command {
	return command{
		name: "copy", summary: "copy the stores from files into a database, or back",
		about: `Copies everything that the services keep from --store to --to, where there must be no data of them yet, and verifies it there. What the services write after the copy was begun is not in it, so stop them, copy, and start them with the new --store.

Photos and videos stay where they are: start the services with the same --blobs, which for a store in a folder is by default the folder blobs in it, file:///FOLDER/blobs.`,
		shared: toStores,
		declare: func(f *flag.FlagSet) action {
			to := f.String("to", "", "`URL` of the store to copy to, as --store")
			return func(ctx context.Context, in *invocation) (report, error) {
				if *to == "" {
					return nil, usageError("expected --to")
				}
				if err := (&Config{Store: *to}).checkStore(); err != nil {
					return nil, usageError(err.Error())
				}
				return in.copy(ctx, *to)
			}
		},
	}
}

func (in *invocation) copy(ctx context.Context, to string) (report, error) {
	start := time.Now()
	s, err := in.openSources(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.dialer != nil {
		in.note("the services are running: what they write from now on is not in the copy")
	}
	target := *in
	target.config.Store, target.config.Blobs = to, ""
	r := &restored{Store: target.config.shownStore()}
	err = target.fill(ctx, func(url string, _ func(string) (*blob.Bucket, error)) error {
		from, w := io.Pipe()
		took := make(chan error, 1)
		go func() {
			t := &backup.Taking{Stores: s.sources(), Now: time.Now}
			_, err := t.Take(ctx, w)
			took <- err
			w.CloseWithError(err)
		}()
		var err error
		r.Restored, r.Verified, err = target.restoreInto(ctx, url, nil, &restoreOptions{}, from)
		from.CloseWithError(errors.New("the copy has failed"))
		if tookErr := <-took; tookErr != nil && err == nil {
			err = tookErr
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}
