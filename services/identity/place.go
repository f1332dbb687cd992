package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// maxPlaces is how many places of one user are known. One more takes the place of that
// which was used least lately.
const maxPlaces = 20

// placeKey is where a place is kept of a user. A new version of a program is no other
// program.
//
// SECURITY: it is the organization's own. If what it knows of a person were shared, it could
// see by what is told of a sign-in where she has signed in elsewhere.
func (o place) placeKey(organization, user string) string {
	program := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) || r == '.' {
			return -1
		}
		return r
	}, o.userAgent)
	sum := sha256.Sum256([]byte(o.network() + "\n" + program))
	return userKey(organization, user) + "/" + hex.EncodeToString(sum[:])
}

func placesOf(tx *store.Tx, organization, user string) (all []*identitystorepb.Place) {
	key := userKey(organization, user)
	for p := range places.Scan(tx, places.Range().From(key+"/").To(key+"0")) { // "0" follows "/"
		all = append(all, p)
	}
	return all
}

// tellNewDevice keeps where a user signs in from, and tells of it if neither that nor the
// device is known.
func tellNewDevice(tx *store.Tx, p proven, session *pb.Session) error {
	id := p.from.placeKey(p.organization, p.user)
	known := placesOf(tx, p.organization, p.user)
	kept, ok := places.Get(tx, id)
	switch {
	case ok && tx.Now().Sub(kept.GetUseTime().AsTime()) < day:
		return nil
	case !ok && len(known) > 0 && p.device == "":
		tx.Emit(&pb.NewDeviceUsed{
			OrganizationId: p.organization, UserId: p.user, SessionId: session.GetId(), Address: p.from.address, UserAgent: p.from.userAgent,
		})
	}
	if !ok && len(known) >= maxPlaces {
		oldest := known[0]
		for _, k := range known {
			if k.GetUseTime().AsTime().Before(oldest.GetUseTime().AsTime()) {
				oldest = k
			}
		}
		places.Delete(tx, oldest.GetId())
	}
	return places.Put(tx, &identitystorepb.Place{
		Id: id, UseTime: timestamppb.New(tx.Now()), ExpireTime: timestamppb.New(tx.Now().Add(knownLife)),
	})
}

// keepSeen keeps of whoever goes on with a session that she was seen, once a day: where she was
// last.
func keepSeen(tx *store.Tx, session *pb.Session) error {
	var last *identitystorepb.Place
	for _, p := range placesOf(tx, session.GetOrganizationId(), session.GetUserId()) {
		if last == nil || p.GetUseTime().AsTime().After(last.GetUseTime().AsTime()) {
			last = p
		}
	}
	if last == nil || tx.Now().Sub(last.GetUseTime().AsTime()) < day {
		return nil
	}
	last.UseTime, last.ExpireTime = timestamppb.New(tx.Now()), timestamppb.New(tx.Now().Add(knownLife))
	return places.Put(tx, last)
}

// forgetPlaces forgets where a user has signed in from.
func forgetPlaces(tx *store.Tx, organization, user string) {
	for _, p := range placesOf(tx, organization, user) {
		places.Delete(tx, p.GetId())
		tx.EraseHistory(places.Name(), p.GetId())
	}
}

// purgePlaces forgets places that nobody comes from any more.
func purgePlaces(tx *store.Tx) int { return deleteDue(tx, places, placesByExpiry) }
