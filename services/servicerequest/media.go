package servicerequest

import (
	"bytes"
	"slices"
	"strings"
)

const (
	maxPhoto = 25 << 20  // bytes
	maxVideo = 500 << 20 // bytes
)

// sniffed is how many bytes of a file tell what it is: all signatures lie within.
const sniffed = 512

// signatures are the kinds of files that can be attached.
var signatures = []struct {
	contentType string
	match       func(head []byte) bool
}{
	{"image/jpeg", prefix("\xff\xd8\xff")},
	{"image/png", prefix("\x89PNG\r\n\x1a\n")},
	{"image/gif", func(h []byte) bool { return prefix("GIF87a")(h) || prefix("GIF89a")(h) }},
	{"image/webp", func(h []byte) bool { return prefix("RIFF")(h) && len(h) >= 12 && string(h[8:12]) == "WEBP" }},
	{"image/heic", brand("heic", "heix", "heim", "heis", "hevc", "hevx")},
	{"image/heif", brand("mif1", "msf1")},
	{"video/quicktime", brand("qt  ")},
	{"video/mp4", brand("isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42", "avc1", "M4V ", "MSNV", "dash")},
	{"video/webm", func(h []byte) bool {
		// EBML (RFC 8794) whose DocType element, 0x4282, is "webm".
		return prefix("\x1a\x45\xdf\xa3")(h) && bytes.Contains(h[:min(len(h), 64)], []byte("\x42\x82\x84webm"))
	}},
}

// typeOf returns the media type of the file that begins with head, or "".
func typeOf(head []byte) string {
	for _, s := range signatures {
		if s.match(head) {
			return s.contentType
		}
	}
	return ""
}

// limitOf returns how many bytes a file of the type may have.
func limitOf(contentType string) int64 {
	if strings.HasPrefix(contentType, "video/") {
		return maxVideo
	}
	return maxPhoto
}

// sameType tells whether a declared media type, which may have parameters, is the
// one found. HEIC is a kind of HEIF, and files of either are called by both names.
func sameType(declared, found string) bool {
	declared, _, _ = strings.Cut(declared, ";")
	declared = strings.ToLower(strings.TrimSpace(declared))
	heif := []string{"image/heic", "image/heif"}
	return declared == found || slices.Contains(heif, declared) && slices.Contains(heif, found)
}

func prefix(p string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(p)) }
}

// brand matches files of ISO/IEC 14496-12 by the major brand of the box "ftyp".
func brand(brands ...string) func([]byte) bool {
	return func(head []byte) bool {
		return len(head) >= 12 && string(head[4:8]) == "ftyp" && slices.Contains(brands, string(head[8:12]))
	}
}
