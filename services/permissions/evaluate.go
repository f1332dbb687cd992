package permissions

import (
	"slices"
	"time"

	"latchkey.dev/services/internal/catalog"
)

var (
	allFeatures  = featureSet()
	regionalKeys = regionalSet()
)

func featureSet() catalog.Set {
	var set catalog.Set
	for _, f := range catalog.Features() {
		set.Add(f.Bit())
	}
	return set
}

func regionalSet() catalog.Set {
	var set catalog.Set
	for _, name := range catalog.RegionalManagerKeys() {
		set.Add(catalog.MustGrant(name))
	}
	return set
}

// team is a group, compiled. The zero team is no group.
type team struct {
	id             string
	role           baseline
	grants, denies catalog.Set
	settings       values
	authors        map[string]string // of the denies, by key
}

// override is one override, compiled.
type override struct {
	bit    catalog.Bit
	deny   bool
	until  time.Time // zero if it has no end
	author string
}

// counts reports whether the override has not ended.
func (o *override) counts(at time.Time) bool { return o.until.IsZero() || at.Before(o.until) }

// access is all that decides about one user, compiled from the records. Nothing in it
// changes once it is made.
type access struct {
	role      baseline // the group's, or the user's own
	regional  bool     // the role is one to which it adds
	group     team
	overrides []override
	own       values
	agent     bool        // linked to a service agent
	plan      catalog.Set // features
}

// layers returns what the layers give, before gates, and the next instant at which
// that can change by itself, or zero.
func (a *access) layers(at time.Time) (set catalog.Set, next time.Time) {
	set = a.role.keys
	if a.regional {
		set = set.Union(regionalKeys)
	}
	set = set.Union(a.group.grants).Without(a.group.denies)
	var grants, denies catalog.Set
	for i := range a.overrides {
		o := &a.overrides[i]
		if !o.counts(at) {
			continue
		}
		if !o.until.IsZero() && (next.IsZero() || o.until.Before(next)) {
			next = o.until
		}
		if o.deny {
			denies.Add(o.bit)
		} else {
			grants.Add(o.bit)
		}
	}
	return set.Union(grants).Without(denies), next
}

// keys returns the keys that count at an instant, were the plan to have these features.
func (a *access) keys(at time.Time, features catalog.Set) catalog.Set {
	set, _ := a.layers(at)
	return catalog.Effective(set.Union(features)).OnlyKeys()
}

// grants returns all that the user holds: keys that count, boolean settings that are
// on and features of the plan; and the next instant at which that can change by itself.
func (a *access) grants(at time.Time) (set catalog.Set, next time.Time) {
	set, next = a.layers(at)
	set = catalog.Effective(set.Union(a.plan))
	return set.Union(a.settings().grants()), next
}

// settings returns the settings that exist for the user.
func (a *access) settings() values { return a.settingsOf(a.agent) }

// settingsOf returns those that would exist were the user linked to a service agent or not.
func (a *access) settingsOf(agent bool) values {
	v := a.own.over(a.group.settings.over(a.role.settings))
	if !agent {
		v = v.withoutAgent()
	}
	return v
}

// instants returns now and each later instant at which an override of one of the users
// ends, in order: between two of them nobody's keys change by themselves.
func instants(now time.Time, users ...*access) []time.Time {
	all := []time.Time{now}
	for _, a := range users {
		for i := range a.overrides {
			if u := a.overrides[i].until; u.After(now) {
				all = append(all, u)
			}
		}
	}
	if len(all) > 1 {
		slices.SortFunc(all, time.Time.Compare)
		all = slices.CompactFunc(all, time.Time.Equal)
	}
	return all
}
