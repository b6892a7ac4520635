package migrate

import (
	"sort"
	"strings"

	"github.com/naming-go/naming"
)

// asNatives returns the endpoints of a registry with the copies of bridges shown as their
// natives. A copy is left out if the registry has a native with its address. The lists are
// sorted by ID. Lists without copies are returned as they are, and the others are made anew.
func asNatives(usable []naming.Endpoint, withheld []naming.Withheld) ([]naming.Endpoint, []naming.Withheld) {
	if !hasCopies(usable, endpointID) && !hasCopies(withheld, withheldID) {
		return usable, withheld
	}
	var x nativeLists
	x.addNatives(usable, withheld)
	x.addCopies(usable, withheld)
	sortEndpoints(x.usable)
	sortWithheld(x.withheld)
	return x.usable, x.withheld
}

// hasCopies reports whether a list, which is sorted by ID, has copies. The IDs of copies
// stand together, behind the IDs of nearly all natives.
func hasCopies[T any](list []T, id func(*T) string) bool {
	i := sort.Search(len(list), func(i int) bool { return id(&list[i]) >= copyPrefix })
	for ; i < len(list) && strings.HasPrefix(id(&list[i]), copyPrefix); i++ {
		if isCopy(id(&list[i])) {
			return true
		}
	}
	return false
}

func endpointID(e *naming.Endpoint) string { return e.ID }

func withheldID(w *naming.Withheld) string { return w.Endpoint.ID }

func isCopy(id string) bool {
	_, _, ok := ParseCopyID(id)
	return ok
}

// nativeLists are lists in which copies are shown as their natives.
type nativeLists struct {
	ids      map[string]string   // the address of each ID of the lists
	addrs    map[string]struct{} // the addresses of the natives
	usable   []naming.Endpoint
	withheld []naming.Withheld
}

func (x *nativeLists) addNatives(usable []naming.Endpoint, withheld []naming.Withheld) {
	x.ids, x.addrs = make(map[string]string), make(map[string]struct{})
	for _, e := range usable {
		if !isCopy(e.ID) {
			x.claim(e)
			x.usable = append(x.usable, e)
		}
	}
	for _, w := range withheld {
		if !isCopy(w.Endpoint.ID) {
			x.claim(w.Endpoint)
			x.withheld = append(x.withheld, w)
		}
	}
}

func (x *nativeLists) claim(e naming.Endpoint) {
	x.ids[e.ID] = e.Addr
	if e.Addr != "" {
		x.addrs[e.Addr] = struct{}{}
	}
}

func (x *nativeLists) addCopies(usable []naming.Endpoint, withheld []naming.Withheld) {
	for _, e := range usable {
		if n, ok := Native(e); ok && x.claimCopy(&n) {
			x.usable = append(x.usable, n)
		}
	}
	for _, w := range withheld {
		if n, ok := Native(w.Endpoint); ok && x.claimCopy(&n) {
			w.Endpoint = n
			x.withheld = append(x.withheld, w)
		}
	}
}

// claimCopy makes the ID of a copy unique, and reports whether the copy is to be shown. A
// native with the copy's ID and another address may be another server, so both stay.
func (x *nativeLists) claimCopy(e *naming.Endpoint) bool {
	if has(x.addrs, e.Addr) {
		return false
	}
	addr, taken := x.ids[e.ID]
	if taken && addr == e.Addr {
		return false
	}
	for n, id := 0, e.ID; taken; n++ {
		e.ID = alias(id, e.Addr, n)
		_, taken = x.ids[e.ID]
	}
	x.ids[e.ID] = e.Addr
	return true
}
