package server

import (
	"context"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/catalog"
)

// ListSettings reads the settings from the meta shard.
func (s *clusterService) ListSettings(ctx context.Context, _ *pb.ListSettingsRequest) (*pb.ListSettingsResponse, error) {
	values, err := await(ctx, s.node.Catalog().ListSettings)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.ListSettingsResponse{}
	for i := range values {
		r.Settings = append(r.Settings, settingOf(&values[i]))
	}
	return r, nil
}

// SetSetting writes a setting to the meta shard, where every node finds it.
func (s *adminService) SetSetting(ctx context.Context, q *pb.SetSettingRequest) (*pb.SetSettingResponse, error) {
	v, err := await(ctx, func(done func(catalog.SettingValue, error)) {
		s.cluster.node.Catalog().SetSetting(q.Name, q.Value, done)
	})
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.SetSettingResponse{Setting: settingOf(&v)}, nil
}

func settingOf(v *catalog.SettingValue) *pb.Setting {
	m := &pb.Setting{
		Name: v.Name, Kind: string(v.Kind), Value: v.Format(v.Value), Default: v.Format(v.Default), Min: v.Format(v.Min), Max: v.Format(v.Max),
		Doc: v.Doc, Set: v.Set,
	}
	if v.Err != nil {
		m.Problem = v.Err.Error()
	}
	return m
}
