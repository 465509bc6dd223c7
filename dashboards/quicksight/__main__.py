"""Write the definitions anew."""

from dashboards import quicksight

quicksight.write()
