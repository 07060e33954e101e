package shard

// Roof is a feature that has landed.
const Roof = 1
