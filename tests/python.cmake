# The Python package's tests as CTest sees them; without the extension each says so and is skipped.
# inferneo_python_test(<name> <label> <timeout in s> <pytest arguments>...)
function(inferneo_python_test name label timeout)
  if(TARGET inferneo_python)
    add_test(NAME python_${name} COMMAND ${INFERNEO_PYTHON_INTERPRETER} tests/run_pytest.py --package ${CMAKE_BINARY_DIR}/python -q ${ARGN}
             WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  else()
    add_test(NAME python_${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: no Python extension")
    set_tests_properties(python_${name} PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: no Python extension")
  endif()
  # Not for the sanitizers' runs, whose runtimes would have to be there before the interpreter.
  set_tests_properties(python_${name} PROPERTIES LABELS "${label};repo;python" TIMEOUT ${timeout} SKIP_RETURN_CODE 77)
endfunction()

inferneo_python_test(unit full 900 tests/unit)
inferneo_python_test(integration full 1200 tests/integration)
# Where CTest knows no times yet, the longest begin first: else one core waits for the other at the end.
set_tests_properties(python_integration PROPERTIES COST 90)
set_tests_properties(python_unit PROPERTIES COST 60)
inferneo_python_test(soak soak 3600 tests/unit/test_engine.py -k ten_thousand)
