package serve

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/migrate"
)

// group is a target group of Prometheus: one endpoint.
//
// Its labels are, with the prefix __meta_naming_: service, id, state (serving, draining,
// withheld or held), reason (of an endpoint that is withheld), weight, zone, version, tags
// (with a comma before, between and after the tags), and metadata_NAME for the members of the
// metadata that are texts, numbers or truth values. A label without a value is absent, and so is
// one with a value of more than 1 KiB, apart from the service and the id.
type group struct {
	Targets [1]string         `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

const (
	labelPrefix = "__meta_naming_"
	// maxMembers and maxValue bound the labels of the metadata of an endpoint.
	maxMembers = 64
	maxValue   = 1 << 10
)

var states = []string{show.Serving, show.Draining, show.Withheld, show.Held}

// targets answers with the targets of all services, for http_sd_configs of Prometheus. The
// services of package migrate, and addresses that are not host:port, are left out.
func (s *Server) targets(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "service", "state")
	if err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	for _, state := range q["state"] {
		if !slices.Contains(states, state) {
			failure(w, http.StatusBadRequest, fmt.Errorf("unknown state %q: want %s", naming.SafeText(state), strings.Join(states, " or ")))
			return
		}
	}
	snap, ok := s.known(w, q["service"])
	if !ok {
		return
	}
	age(w, &snap.Status)
	if unchanged(w, r, snap.Run, snap.Version) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	body, done := httpd.Compress(w, r)
	buf := bufio.NewWriterSize(body, 32<<10)
	writeTargets(buf, snap.Services, q["state"])
	_ = buf.Flush()
	_ = done()
}

// writeTargets writes the endpoints of services that are in one of the states, or in any. It
// writes one group at a time: all together may be large.
func writeTargets(w *bufio.Writer, services []hub.Service, in []string) {
	separator := "[\n"
	for i := range services {
		service := &services[i]
		if service.Service == migrate.RecordService || service.Service == migrate.BridgeService {
			continue
		}
		for _, e := range show.ServiceOf(service.View).Endpoints {
			if len(in) > 0 && !slices.Contains(in, e.State) || !scrapable(e.Addr) {
				continue
			}
			line, err := json.Marshal(group{[1]string{e.Addr}, labels(service.Service, &e)})
			if err != nil {
				panic(err) // The group has texts only.
			}
			_, _ = w.WriteString(separator)
			if _, err := w.Write(line); err != nil {
				return // The client is gone.
			}
			separator = ",\n"
		}
	}
	if separator == "[\n" {
		_, _ = w.WriteString("[")
	}
	_, _ = w.WriteString("]\n")
}

// scrapable reports whether Prometheus can use an address. Prometheus logs an error for each
// address that has a slash, at every refresh.
func scrapable(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	return err == nil && host != "" && port != "" && !strings.Contains(addr, "/")
}

func labels(service string, e *show.Endpoint) map[string]string {
	l := map[string]string{labelPrefix + "service": service, labelPrefix + "id": e.ID, labelPrefix + "state": e.State}
	for name, value := range map[string]string{"reason": e.Reason, "zone": e.Zone, "version": e.Version} {
		if value != "" && len(value) <= maxValue {
			l[labelPrefix+name] = value
		}
	}
	if e.Weight != 0 {
		l[labelPrefix+"weight"] = e.WeightText()
	}
	if tags := "," + strings.Join(e.Tags, ",") + ","; len(e.Tags) > 0 && len(tags) <= maxValue {
		l[labelPrefix+"tags"] = tags
	}
	addMembers(l, e.Metadata)
	return l
}

// reserved are the members of metadata that have labels of their own.
var reserved = []string{"weight", "zone", "version", "tags", "draining", migrate.MarkKey}

// addMembers adds the simple members of metadata as labels.
func addMembers(l map[string]string, metadata json.RawMessage) {
	if len(metadata) == 0 || metadata[0] != '{' {
		return
	}
	var members map[string]any
	if json.Unmarshal(metadata, &members) != nil || len(members) > maxMembers {
		return
	}
	// Of several names that make one label, the first counts: the label must not change
	// from one answer to the next.
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var value string
		switch v := members[name].(type) {
		case string:
			value = v
		case float64:
			value = strconv.FormatFloat(v, 'g', -1, 64)
		case bool:
			value = strconv.FormatBool(v)
		}
		if value == "" || len(value) > maxValue || len(name) > maxValue || slices.Contains(reserved, name) {
			continue
		}
		if label := labelPrefix + "metadata_" + labelName(name); l[label] == "" {
			l[label] = value
		}
	}
}

// labelName replaces the characters that the name of a label cannot have.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}
