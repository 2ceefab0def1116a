// SPDX-License-Identifier: Apache-2.0
// The core's argument and answer types as JSON. Pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "core/control/param_reader.h"
#include "core/dm/commands.h"

namespace dmfs {

// Reads "name", "uuid" or "minor"; refuses none and more than one.
DeviceSelector read_selector(ParamReader& params);
// Reads "targets".
std::vector<TargetSpec> read_targets(ParamReader& params);

nlohmann::json to_json(const DeviceInfo& info);
nlohmann::json to_json(const TableStatus& table);
nlohmann::json to_json(const WaitReport& report);
nlohmann::json to_json(const TableDeps& deps);
nlohmann::json to_json(const PathsOfDevice& paths);

}  // namespace dmfs
