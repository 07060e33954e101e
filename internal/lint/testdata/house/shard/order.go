package shard

import (
	"maps"
	"slices"
	"sync"
)

type set map[string]bool

func order[M ~map[string]int](m set, g M, shared *sync.Map, list []string) (sum int) {
	for range m { // want order "random order"
		sum++
	}
	for k := range m { //order-free: a sum does not depend on the order
		sum += len(k)
	}
	//order-free: a sum does not depend on the order
	for k := range m {
		sum += len(k)
	}
	//order-free:
	for k := range m { // want order "random order"
		sum += len(k)
	}
	for range g { // want order "random order"
		sum++
	}
	for range maps.Keys(m) { // want order "random order"
		sum++
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		sum += len(k)
	}
	_ = slices.Collect(maps.Values(m))                // want order "random order"
	shared.Range(func(k, v any) bool { return true }) // want order "random order"
	for range list {
		sum++
	}
	return sum
}
