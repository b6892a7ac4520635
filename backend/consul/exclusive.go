package consul

// ExclusiveAdds returns false: of several Adds of one endpoint with IfFree, at the same time
// and by several Stores, more than one may take effect for a moment. Consul's catalogue has
// no condition for a registration. Programs that elect one of them with such an Add need
// another registry.
func (s *Store) ExclusiveAdds() bool { return false }
