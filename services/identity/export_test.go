package identity

import (
	"crypto/rand"
	"sync/atomic"

	"latchkey.dev/services/internal/server"
)

// Cheap is Part with hashes that cost next to nothing. Most tests sign in often, and
// what that costs is no part of what they look at.
var Cheap = server.Part{Name: Part.Name, Schema: schema, Start: func(env *server.Env) error {
	return startWith(env, newHasher(cheap, 2, rand.Reader))
}}

// Counted is Part, whose hashes are counted.
var Counted = server.Part{Name: Part.Name, Schema: schema, Start: func(env *server.Env) error {
	return startWith(env, newHasher(currentParams, 2, rand.Reader))
}}

// last is the hasher of the part that started last.
var last atomic.Pointer[hasher]

func startWith(env *server.Env, h *hasher) error {
	s := newService(env)
	s.hasher = h
	last.Store(h)
	return s.serve(env)
}

// Hashes tells how many passwords the part that started last has hashed.
func Hashes() int64 { return last.Load().done.Load() }

// FillUp takes every place for those who wait for a hash, until it is told to leave.
func FillUp() (leave func()) {
	h := last.Load()
	for range cap(h.places) {
		h.places <- struct{}{}
	}
	return func() {
		for range cap(h.places) {
			<-h.places
		}
	}
}
