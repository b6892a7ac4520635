package wire

import (
	"strconv"
	"unicode/utf8"
)

// The keys of Meta that a Store writes. All begin with reserved.
const (
	reserved = "naming-"

	MetaID   = "naming-id"   // the endpoint's ID; an entry with this key was written by a Store
	metaGen  = "naming-gen"  // the registration's number: of several registrations of one ID, the highest counts
	metaAddr = "naming-addr" // Addr, where Address and Port cannot say it
	metaForm = "naming-form" // what kind of metadata there is; missing: none
	metaJSON = "naming-json" // the part of the metadata that has no other place
	metaPeer = "naming-peer" // how many Tags come before the endpoint's own, for the readers that a Format is for

	metaDraining = "naming-draining" // "true": the endpoint is draining
)

// The values of metaForm.
const (
	formObject   = "object"        // members in Meta, Tags and metaJSON
	formWeighted = "object+weight" // the same, and the weight in Weights
	formValue    = "value"         // not an object: all of the metadata is in metaJSON
)

// The limits of Consul for the Meta of a service. MaxKey and MaxValue are in bytes.
const (
	MaxPairs = 64
	MaxKey   = 128
	MaxValue = 512
)

// putPieces writes a value to Meta, in pieces if the value is too long for one pair:
// the first piece under key, the next under key-1 and so on.
func putPieces(meta map[string]string, key, value string) {
	for i := 0; ; i++ {
		n := pieceLen(value)
		meta[pieceKey(key, i)] = value[:n]
		if value = value[n:]; value == "" {
			return
		}
	}
}

// pieceLen returns the length of the first piece of a value.
func pieceLen(value string) int {
	n := min(len(value), MaxValue)
	for n < len(value) && !utf8.RuneStart(value[n]) {
		n--
	}
	return n
}

func pieceKey(key string, i int) string {
	if i == 0 {
		return key
	}
	return key + "-" + strconv.Itoa(i)
}

// joinPieces returns the value that putPieces wrote under key.
func joinPieces(meta map[string]string, key string) (value string, ok bool) {
	value, ok = meta[key]
	for i := 1; ok && i < MaxPairs; i++ { // Encode writes at most MaxPairs pieces
		more, there := meta[pieceKey(key, i)]
		if !there {
			break
		}
		value += more
	}
	return value, ok
}

// FirstPiece returns the part of an endpoint's ID that is under MetaID itself.
func FirstPiece(id string) string { return id[:pieceLen(id)] }

// LetterOrDigit reports whether c is an ASCII letter or digit.
func LetterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
