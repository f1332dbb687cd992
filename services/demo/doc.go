// Package demo fills a fresh suite with a made-up company: three properties with
// their units and teams, one user per role, a price book, a service agent. It does so
// as any client would, by calls to the API, and so keeps nothing of its own.
package demo
