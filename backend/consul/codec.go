package consul

import "github.com/naming-go/naming/backend/consul/internal/wire"

// Codec is the format of another framework: how a Store reads the entries of that
// framework's programs, and what it adds to its own entries for those programs to
// read. Package consulcodec has the Codecs. The zero Codec adds and reads nothing. Several
// Stores may use one Codec at once.
//
// Every Store reads an entry that a Store has put in the same way, whatever the codecs of
// the two.
type Codec struct {
	// Format is what package consulcodec sets. Its type is internal, so no other
	// package can make a Codec.
	Format *wire.Format
}

// rules returns how entries are read.
func (o *Options) rules() wire.Rules {
	return wire.Rules{Format: o.format(), PortName: o.PortName, NoDrainingMark: o.NoDrainingMark}
}

// format returns the format of the codec, nil without a codec.
func (o *Options) format() *wire.Format {
	if o.Codec == nil {
		return nil
	}
	return o.Codec.Format
}
