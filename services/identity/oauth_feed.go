package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/store"
)

// feedPause is how often the feed looks for news, and says that it is alive.
const feedPause = 250 * time.Millisecond

// revocationList is what holds no more of the access tokens that have not expired.
type revocationList struct {
	// Time is that of the list, in seconds since 1970. A token that was issued before is
	// void if the list names it, and good if it does not.
	Time        int64              `json:"time"`
	Revocations []revocationNotice `json:"revocations"`
}

// revocationNotice makes void what was issued no later than Time: the tokens with the
// session as their sid, the user as their uid, or the organization as their org.
type revocationNotice struct {
	Session string `json:"sid,omitempty"`
	User    string `json:"uid,omitempty"`
	// Organization is the org of the tokens of all who are in one that was shut.
	Organization string `json:"org,omitempty"`
	Time         int64  `json:"time"`
}

func notice(r *identitystorepb.Revocation) revocationNotice {
	n := revocationNotice{Time: r.GetTime().GetSeconds()}
	switch kind, id, _ := strings.Cut(r.GetSubject(), ":"); kind {
	case "session":
		n.Session = id
	case "user":
		n.User = id
	case "organization":
		n.Organization = id
	}
	return n
}

// revocationsSince reads what was revoked after a time, and until when that is so.
func (s *service) revocationsSince(ctx context.Context, since time.Time) (list *revocationList, now time.Time, err error) {
	list = &revocationList{Revocations: []revocationNotice{}}
	_, err = read(ctx, s, func(tx *store.Tx) (bool, error) {
		now = tx.Now()
		list.Time = now.Unix()
		for r := range revocationsByTime.Scan(tx, revocationsByTime.Range().From(since)) {
			list.Revocations = append(list.Revocations, notice(r))
		}
		return true, nil
	})
	return list, now, err
}

// verifier makes sure that who asks is a client with a secret, or a program with an API key.
func (s *service) verifier(r *http.Request) error {
	who, err := s.claimantOf(r, nil)
	if err == nil && who.secret == "" {
		err = invalidClient()
	}
	return err
}

// listRevocations tells those who verify tokens offline, once, what holds no more.
func (s *service) listRevocations(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	err := s.verifier(r)
	if err == nil {
		var list *revocationList
		if list, _, err = s.revocationsSince(r.Context(), s.now().Add(-revocationLife)); err == nil {
			writeJSON(w, http.StatusOK, list)
			return
		}
	}
	s.refuse(w, r, err)
}

// feedRevocations tells the same and then goes on, as server-sent events: first all, and
// then what is new, four times a second also when that is nothing. Each look overlaps the
// one before, so that nothing is missed that was committed late.
func (s *service) feedRevocations(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	if err := s.verifier(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(feedPause)
	defer tick.Stop()
	for since := s.now().Add(-revocationLife); ; {
		list, now, err := s.revocationsSince(r.Context(), since)
		if err != nil {
			return
		}
		text, err := json.Marshal(list)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "event: revocations\ndata: %s\n\n", text); err != nil || out.Flush() != nil {
			return
		}
		since = now.Add(-feedOverlap)
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// feedOverlap is longer than what is between the time of a transaction and the end of its
// commit, and than clocks of replicas differ.
const feedOverlap = 10 * time.Second
