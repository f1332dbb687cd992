// Package catalog is the suite's list of permission keys, settings, add-on
// features and built-in roles, as data, and the sets of grants made of them.
//
// The data is in four tables beside this file: catalog.tsv, settings.tsv,
// features.tsv and roles.tsv. They are part of the program: read once, checked
// strictly, and a mistake in them panics at start, as it is a bug.
//
// A grant is what a rule in a .proto file names: a key ("Invoices:Void"), a
// boolean setting ("setting:see_pricing") or an add-on feature of the plan
// ("feature:routing"). Each has one [Bit], and a [Set] holds one bit for each.
//
// What is always true:
//   - A number, once given, names the same grant forever: sets are stored and
//     sent as bits. A key that is withdrawn leaves a hole.
//   - Key strings are facts shared with operators and other programs, and are
//     kept byte for byte. Titles and descriptions are ours.
//   - No two keys, settings, features or roles can be confused by a reader who
//     ignores case and blanks.
//   - What decides about access looks grants up by exact spelling ([Grant]);
//     the tolerant [Lookup] is for what people type.
//   - [Gate] only removes. [Implied] is the only thing that adds, and
//     [Effective] is the only place that applies it.
package catalog
