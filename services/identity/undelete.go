package identity

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/store"
)

// undeleteLife is how long what was ended or closed can be brought back.
const undeleteLife = 28 * 24 * time.Hour

// deletable is a record that can be brought back for a while.
type deletable interface {
	GetDeleteTime() *timestamppb.Timestamp
	GetPurgeTime() *timestamppb.Timestamp
}

// purgeDue tells whether a record was deleted and can be brought back no more.
func purgeDue(tx *store.Tx, r deletable) bool {
	return r.GetDeleteTime() != nil && !r.GetPurgeTime().AsTime().After(tx.Now())
}

// endNow are the times of a record that is deleted now.
func endNow(tx *store.Tx) (deleted, purge *timestamppb.Timestamp) {
	return timestamppb.New(tx.Now()), timestamppb.New(tx.Now().Add(undeleteLife))
}
