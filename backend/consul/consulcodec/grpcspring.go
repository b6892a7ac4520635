package consulcodec

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// GRPCSpring returns the format of grpc-spring's servers with Spring Cloud Consul:
//
//	ID             greeter-1
//	Name           greeter
//	Address, Port  127.0.0.1, 8080
//	Meta           gRPC_port: 9090
//
// The port of gRPC is the gRPC_port of Meta, or of a tag gRPC_port=9090, which older
// versions write. Without either it is the service's port. The name "gRPC.port" means
// the same in both places. If the service's own port is another one, it is kept as the
// member "Port" of "@entry".
//
// A Store puts the port of gRPC as the service's port. grpc-spring's clients use that
// port when Meta has none.
func GRPCSpring() *consul.Codec {
	return &consul.Codec{Format: &wire.Format{Decode: decodeGRPCSpring, Encode: encodeGRPCSpring}}
}

// springPorts are the names of the port of gRPC, newest first.
var springPorts = [...]string{"gRPC_port", "gRPC.port"}

const portMember = "Port" // of @entry

func decodeGRPCSpring(entry *wire.Entry, ep *naming.Endpoint) error {
	m := entry.Members()
	value, found := springPort(entry)
	if found {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%s %q is not from 1 to 65535", springPorts[0], naming.SafeText(value))
		}
		host, err := wire.PlainHost(cmp.Or(entry.Service.Address, entry.Node.Address))
		if err != nil {
			return err
		}
		if addr := net.JoinHostPort(host, strconv.FormatUint(n, 10)); addr != ep.Addr {
			m.SetAside(portMember, entry.Service.Port)
			ep.Addr = addr
		}
	}
	for _, name := range springPorts {
		m.Delete(name)
	}
	ep.Metadata = m.Metadata()
	return nil
}

// springPort returns the port of gRPC as the entry has it, and reports whether the
// entry has one.
func springPort(entry *wire.Entry) (value string, ok bool) {
	for _, name := range springPorts {
		if value, ok := entry.Service.Meta[name]; ok {
			return value, true
		}
	}
	for _, name := range springPorts {
		for _, tag := range entry.Service.Tags {
			if value, ok := strings.CutPrefix(tag, name+"="); ok {
				return value, true
			}
		}
	}
	return "", false
}

func encodeGRPCSpring(naming.Endpoint, *api.AgentServiceRegistration) []string { return nil }
