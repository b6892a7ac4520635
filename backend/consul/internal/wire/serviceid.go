package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// NoLease stands for the lease in the service IDs of registrations without a lease.
// These IDs are the same whichever Store puts the endpoint.
const NoLease = "0"

// ServiceID returns the service ID of a registration: the readable start of the
// endpoint's ID, and a hash of the ID, the service and the lease. The hash keeps it
// apart from every other registration on a node.
func ServiceID(lease, name, id string) string {
	sum := sha256.Sum256([]byte(lease + "\x00" + name + "\x00" + id))
	return readable(id) + "~" + hex.EncodeToString(sum[:8])
}

// readable returns the start of an ID, with '-' for each character that would need an
// escape in the path of a URL.
func readable(id string) string {
	const most = 100
	var b strings.Builder
	for _, r := range id {
		if r < utf8.RuneSelf && (LetterOrDigit(byte(r)) || strings.ContainsRune("-_.:[]@", r)) {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
		if b.Len() == most {
			break
		}
	}
	return b.String()
}
